"""`safecomm evaluate` measures a model beside its adapters and asks nothing twice."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from safecomm.cli import main
from safecomm.errors import UsageError
from safecomm.evaluate.comparison import BARE, _measured, _subjects


def rows(harm: str, telecom: str = "") -> pd.DataFrame:
    """Verdicts on harmful prompts (u, s or ?) and on telecom questions (r or w), one a letter."""
    words = {"u": "unsafe", "s": "safe", "?": "unscored", "r": "right", "w": "wrong"}
    return pd.DataFrame(
        [
            {"prompt_id": f"{kind}{place}", "benchmark": kind, "kind": kind, "verdict": words[letter]}
            for kind, letters in (("red_team", harm), ("telecom", telecom))
            for place, letter in enumerate(letters)
        ]
    )


def test_differences_are_on_the_prompts_that_both_have_a_verdict_on() -> None:
    bare, tuned = _measured({BARE: rows("ssss?s", "wwr"), "tuned": rows("uuss?u", "rrr")}, ["refusal"])
    assert bare.differences == {} and set(tuned.differences) == {"asr", "accuracy"}
    assert tuned.differences["asr"].n == 5 and tuned.differences["asr"].value == pytest.approx(0.6)
    assert tuned.rates["asr"].value == pytest.approx(3 / 5) and tuned.rates["asr"].unscored == pytest.approx(1 / 6)
    assert tuned.differences["accuracy"].value == pytest.approx(2 / 3)


def test_p_values_are_corrected_for_the_number_of_adapters() -> None:
    many = {f"adapter {number}": rows("u" * 8 + "s" * 12) for number in range(3)}
    alone = _measured({BARE: rows("s" * 20), "adapter 0": many["adapter 0"]}, ["refusal"])[1]
    among = _measured({BARE: rows("s" * 20), **many}, ["refusal"])[1]
    assert among.differences["asr"].p == pytest.approx(3 * alone.differences["asr"].p)


def test_judges_are_compared_on_harmful_prompts() -> None:
    table = rows("uuss", "rw").assign(**{"verdict@compliance": ["unsafe", "safe", "safe", "safe", None, None]})
    (bare,) = _measured({BARE: table}, ["refusal", "compliance"])
    assert bare.agreements["refusal, compliance"].kappa == pytest.approx(0.5)
    assert bare.agreements["refusal, compliance"].n == 4


def test_adapters_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two models are called model"):
        _subjects([tmp_path / "model"])


@pytest.mark.ray
@pytest.mark.slow
def test_a_second_run_asks_nothing_and_a_further_benchmark_only_that(
    ray_session: None,
    lab: dict[str, Path],
    adapters: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def evaluate(*benchmarks: str) -> str:
        words = ["evaluate", "--model", lab["aligned"], "--engine=transformers", "--limit=12", "--max-new-tokens=8"]
        words += [word for name in benchmarks for word in ("--benchmark", name)]
        words += [word for folder in adapters[:2] for word in ("--adapter", folder)]
        words += ["--judge=refusal", "--judge=compliance", "--max-model-len=256"]
        monkeypatch.setattr(
            sys, "argv", ["safecomm", *map(str, words), f"--storage={tmp_path}", f"--out={tmp_path / 'out'}"]
        )
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code in (0, None)
        return capsys.readouterr().out

    first = evaluate("lab-harm", "lab-borderline")
    assert "72 of 72 answers are missing" in first and first.count("n=12") > 6
    assert "0 of 72 answers are missing" in evaluate("lab-harm", "lab-borderline")
    assert "36 of 108 answers are missing" in evaluate("lab-harm", "lab-borderline", "lab-telecom")
    kept = pd.read_parquet(tmp_path / "out" / "rows.parquet")
    assert len(kept) == 108 and not kept.duplicated(["subject", "prompt_id"]).any() and (kept["error"] == "").all()
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [one["name"] for one in results] == [BARE, *(Path(folder).name for folder in adapters[:2])]
    assert set(results[1]["differences"]) == {"asr", "accuracy", "over_refusal"}
    assert "refusal, compliance" in results[0]["agreements"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--judge=nobody"], "--judge nobody"),
        (["--judge=refusal", "--judge=refusal"], "each judge once"),
        (["--engine=magic"], "--engine magic"),
    ],
)
def test_mistakes_are_told_before_anything_is_loaded(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["safecomm", "evaluate", "--model=m", "--benchmark=lab-harm", "--out=o", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and said in capsys.readouterr().err
