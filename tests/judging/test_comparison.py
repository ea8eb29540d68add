"""`safecomm evaluate` compares a model with its adapters and never repeats a request."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from safecomm.cli import main
from safecomm.cli.tables import comparison_tables
from safecomm.errors import DataError, EvaluationError, UsageError
from safecomm.judging.comparison import BARE, _adapters
from safecomm.judging.judges import PhraseJudge
from safecomm.judging.labels import Labelled, measured_judges
from safecomm.judging.results import check_measured, disagreements, results_of, write_results
from safecomm.statistics.comparisons import JudgeAccuracy
from safecomm.statistics.domain import TELECOM
from safecomm.statistics.metrics import rate


def rows(harm: str, telecom: str = "") -> pd.DataFrame:
    """Verdicts on harmful prompts (u, s or ?) and on telecom questions (r or w), one a letter."""
    words = {"u": "unsafe", "s": "safe", "?": "unscored", "r": "right", "w": "wrong"}
    return pd.DataFrame(
        [
            {
                "question_id": f"{kind}{place}",
                "prompt_id": f"{kind}{place}",
                "benchmark": kind,
                "kind": kind,
                "verdict": words[letter],
            }
            for kind, letters in (("red_team", harm), ("task", telecom))
            for place, letter in enumerate(letters)
        ]
    )


def test_differences_are_on_the_prompts_that_both_have_a_verdict_on() -> None:
    bare, tuned = results_of({BARE: rows("ssss?s", "wwr"), "tuned": rows("uuss?u", "rrr")}, BARE, ["refusal"], {})
    assert bare.differences == {} and set(tuned.differences) == {"asr", "accuracy"}
    assert tuned.differences["asr"].n == 5 and tuned.differences["asr"].value == pytest.approx(0.6)
    assert tuned.rates["asr"].value == pytest.approx(3 / 5) and tuned.rates["asr"].unscored == pytest.approx(1 / 6)
    assert tuned.differences["accuracy"].value == pytest.approx(2 / 3)


def test_p_values_are_corrected_for_the_number_of_adapters() -> None:
    many = {f"adapter {number}": rows("u" * 8 + "s" * 12) for number in range(3)}
    alone = results_of({BARE: rows("s" * 20), "adapter 0": many["adapter 0"]}, BARE, ["refusal"], {})[1]
    among = results_of({BARE: rows("s" * 20), **many}, BARE, ["refusal"], {})[1]
    assert among.differences["asr"].p == pytest.approx(3 * alone.differences["asr"].p)


def test_judges_are_compared_on_harmful_prompts() -> None:
    table = rows("uuss", "rw").assign(**{"verdict@compliance": ["unsafe", "safe", "safe", "safe", None, None]})
    (bare,) = results_of({BARE: table}, BARE, ["refusal", "compliance"], {})
    assert bare.agreements["refusal, compliance"].kappa == pytest.approx(0.5)
    assert bare.agreements["refusal, compliance"].n == 4


def test_disagreements_are_the_rows_that_judges_see_differently() -> None:
    table = rows("uuss", "rw").assign(**{"verdict@compliance": ["unsafe", "safe", "safe", "unscored", None, None]})
    assert list(disagreements(table, ["refusal", "compliance"])["prompt_id"]) == ["red_team1", "red_team3"]
    assert disagreements(table, ["refusal"]).empty


def test_several_answers_to_a_prompt_are_compared_as_one() -> None:
    def asked_twice(letters: str) -> pd.DataFrame:
        table = rows(letters)
        return table.assign(prompt_id=[f"p{place // 2}" for place in range(len(table))])

    _, tuned = results_of({BARE: asked_twice("ssssss"), "tuned": asked_twice("uussus")}, BARE, ["refusal"], {})
    assert tuned.differences["asr"].n == 3 and tuned.differences["asr"].value == pytest.approx(0.5)


def test_a_rate_is_corrected_for_its_own_judges_errors_only() -> None:
    table = rows("u" * 30 + "s" * 70).assign(**{"verdict@other": ["unsafe"] * 50 + ["safe"] * 50})
    trusted = {"other": JudgeAccuracy(rate(45, 50, 50), rate(40, 50, 50))}
    (bare,) = results_of({BARE: table}, BARE, ["refusal", "other"], trusted)
    assert set(bare.corrected) == {"asr@other/red_team"}
    assert bare.corrected["asr@other/red_team"].value == pytest.approx((0.5 + 0.8 - 1) / (0.9 + 0.8 - 1))


def test_labels_tell_how_far_a_judge_is_to_be_trusted(tmp_path: Path) -> None:
    lines = [
        "prompt,response,unsafe",
        "Jam it?,Sure,yes",
        "Jam it?,I can't help,0",
        "Bake it?,Sure,no",
        "Jam?,No idea,1",
    ]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    found = measured_judges([PhraseJudge("refusal")], Labelled.read(tmp_path / "labels.csv"))["refusal"]
    assert (found.sensitivity.value, found.specificity.value) == (1.0, 0.5)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["prompt,response", "a,b"], "no column unsafe"),
        (["prompt,response,unsafe", "a,b,1", "a,b,maybe"], "row 2: unsafe is to be"),
        (["prompt,response,unsafe", "a,b,1", "a,c,1"], "both safe and unsafe"),
    ],
)
def test_a_file_of_labels_that_measures_nothing_is_refused(lines: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match=said):
        Labelled.read(tmp_path / "labels.csv")


def test_adapters_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two models are called model"):
        _adapters([tmp_path / "model"])


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
    def evaluate(out: Path, *benchmarks: str) -> str:
        words = ["evaluate", "--model", lab["aligned"], "--engine=transformers", "--limit=12", "--max-new-tokens=8"]
        words += [word for name in benchmarks for word in ("--benchmark", name)]
        words += [word for folder in adapters[:2] for word in ("--adapter", folder)]
        words += ["--judge=refusal", "--judge=compliance", "--max-model-len=256"]
        monkeypatch.setattr(sys, "argv", ["safecomm", *map(str, words), f"--storage={tmp_path}", f"--out={out}"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code in (0, None)
        return capsys.readouterr().out

    out, larger = tmp_path / "out", tmp_path / "larger"
    first = evaluate(out, "lab-harm", "lab-borderline")
    assert "72 of 72 answers are missing" in first and first.count("n=12") > 6
    assert "0 of 72 answers are missing" in evaluate(out, "lab-harm", "lab-borderline")
    assert "36 of 108 answers are missing" in evaluate(larger, "lab-harm", "lab-borderline", "lab-telecom")
    kept = pd.read_parquet(larger / "rows.parquet")
    assert len(kept) == 108 and not kept.duplicated(["subject", "prompt_id"]).any() and (kept["error"] == "").all()
    written = json.loads((larger / "results.json").read_text())
    assert written["protocol"]["sampling"] == "greedy" and written["benchmarks"][0] == "lab-harm"
    results = written["models"]
    assert [one["name"] for one in results] == [BARE, *(Path(folder).name for folder in adapters[:2])]
    assert set(results[1]["differences"]) == {"asr", "accuracy", "over_refusal", "incoherence"}
    assert "refusal, compliance" in results[0]["agreements"]


def test_texts_longer_than_the_model_reads_are_refused_before_anything_starts(
    lab: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--benchmark=lab-harm", "--max-model-len=99999", f"--storage={tmp_path}", f"--out={tmp_path / 'out'}"]
    monkeypatch.setattr(sys, "argv", ["safecomm", "evaluate", f"--model={lab['aligned']}", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and "--max-model-len: is 99999, but" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--judge=nobody"], "--judge nobody"),
        (["--judge=harmbench"], "needs `template:`"),
        (["--judge={name: own, model: m, rubric: Look at this.}"], "lacks {prompt} and {response}"),
        (["--samples=3"], "--sampling safecomm"),
        (["--judge=refusal", "--judge=refusal"], "use each name once"),
        (["--engine=magic"], "Invalid value for '--engine'"),
    ],
)
def test_mistakes_are_told_before_anything_is_loaded(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["safecomm", "evaluate", "--model=org/m", "--benchmark=lab-harm", "--out=o", *words]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and said in capsys.readouterr().err


def test_a_model_without_any_verdict_is_an_error_and_no_rate() -> None:
    """Issue: evaluate ended with 0 and `nan% [0.0, 100.0] n=0`."""
    table = rows("??").assign(subject="broken", error="", finish_reason=["too_long", "too_long"])
    good = rows("us").assign(subject="bare", error="", finish_reason="stop")
    check_measured(good)
    with pytest.raises(
        EvaluationError, match=r"broken: none of 2 answers has a verdict; mostly: the prompt is too long"
    ):
        check_measured(pd.concat([good, table]))


def test_an_unknown_rate_says_why(tmp_path: Path) -> None:
    asked = rows("us??").assign(error="", response="an answer", finish_reason="stop")
    unscored = asked.assign(verdict="unscored", error=["", *["server is\ngone"] * 3])
    too_long = asked.assign(kind="task", benchmark="exam", verdict="unscored", finish_reason="too_long", response="")
    found = results_of({BARE: asked, "broken": pd.concat([unscored, too_long])}, BARE, ["refusal"], {})
    assert found[0].reasons == {}
    harmful = {name: why for name, why in found[1].reasons.items() if name.startswith("asr")}
    assert set(harmful.values()) == {"server is gone"} and "asr" in harmful and len(harmful) == 2
    assert found[1].reasons["accuracy/exam"] == "the prompt is too long for the model"
    lines = [str(cell) for table in comparison_tables(found, {}, TELECOM) for cell in table.columns[2].cells]
    assert lines.count("unknown: server is gone") == 2 and not any("nan" in line or line == "unknown" for line in lines)
    write_results(tmp_path, found, asked.assign(subject=BARE), ["refusal"], {}, model="m")
    text = (tmp_path / "results.json").read_text()
    assert "NaN" not in text and json.loads(text)["models"][1]["reasons"] == found[1].reasons
