"""The release gate and the export."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from command_line import safecomm

from safecomm.report.export import lineage_of
from safecomm.report.gate import decide
from safecomm.report.policy import Policy
from safecomm.report.release import released
from safecomm.report.run import FLATTERED, SIMULATED, read_run
from safecomm.statistics.metrics import as_columns, rates


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gate"], "give either --policy FILE or at least one of --max-asr"),
        (["gate", "--max-asr=0.1", "--arm=nobody"], "has no arm nobody on the report split"),
    ],
)
def test_gate_without_limits_or_results_is_rejected(
    run_folder: Path, words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert safecomm(monkeypatch, words[0], run_folder, *words[1:]) == 2
    assert said in capsys.readouterr().err


def test_export_includes_lineage_and_card(
    with_adapters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert safecomm(monkeypatch, "export", with_adapters, "--arm", "safe_merge", "--out", out) == 0
    assert (out / "adapter_model.safetensors").read_bytes() == b"weights"
    assert json.loads((out / "adapter_config.json").read_text()) == {"r": 8, "base_model_name_or_path": "lab://aligned"}
    lineage = json.loads((out / "lineage.json").read_text())
    assert [stage["stage"] for stage in lineage["stages"]] == ["realign", "finetune", "data"]
    assert lineage["arm"] == "safe_merge" and lineage["sweep"]["name"] == "small"
    card = (out / "README.md").read_text()
    row = released(read_run(with_adapters), "safe_merge", 0).row
    n = f"n={row.rates['asr'].n}"
    for text in ("A LoRA adapter for `lab://aligned`", "| Attack success |", n, "that refusal labels"):
        assert text in card
    assert "weight" in card and "| lab-teleqna |" in card
    capsys.readouterr()
    assert safecomm(monkeypatch, "export", with_adapters, "--arm", "safe_merge", "--out", out) == 2
    assert "already exists" in capsys.readouterr().err


def test_the_lineage_lists_what_an_adapter_was_trained_on_top_of(with_adapters: Path) -> None:
    """As with lox, followed by a realignment."""
    store = with_adapters.parent / "store"
    inputs = {"realign": {"adapter": "s"}, "stacked": {"below": "b", "above": "f"}, "start": {"defense": "lox"}}
    for (stage, made_from), key in zip(inputs.items(), "xsb", strict=True):
        (store / stage / key).mkdir(parents=True)
        record = {"stage": stage, "key": key, "inputs": made_from}
        (store / stage / key / "lineage.json").write_text(json.dumps(record))
    lineage = lineage_of(released(read_run(with_adapters), "safe_instruct", 0), store / "realign" / "x")
    assert [stage["stage"] for stage in lineage["stages"]] == ["realign", "stacked", "finetune", "data", "start"]


def test_report_prints_nothing_but_json_on_request(
    with_adapters: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert safecomm(monkeypatch, "report", with_adapters, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["recommended"]["arm"] in {arm["arm"] for arm in found["arms"]}
    assert (with_adapters / "guide.md").is_file()


def test_any_point_of_the_search_is_exported_with_its_optimistic_rates(
    with_adapters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = pd.read_parquet(with_adapters / "trials.parquet")
    merges = trials[(trials["arm"] == "safe_merge") & (trials["split"] == "search") & (trials["status"] == "done")]
    best = released(read_run(with_adapters), "safe_merge", 0).trial["trial"]
    (other,) = merges[merges["trial"] != best].to_dict("records")
    out = tmp_path / "out"
    assert safecomm(monkeypatch, "export", with_adapters, "--point", other["trial"], "--out", out) == 0
    assert json.loads((out / "lineage.json").read_text())["point"] == json.loads(other["point"])
    card = (out / "README.md").read_text()
    assert "so the rates are optimistic" in card
    assert f"{other['asr']:.1%}" in card
    capsys.readouterr()
    for words, said in (
        (["--point", "t999"], "--point: the search of"),
        (["--point", other["trial"], "--arm", "safe_merge"], "remove --arm and --seed"),
    ):
        assert safecomm(monkeypatch, "export", with_adapters, *words, "--out", tmp_path / "none") == 2
        assert said in capsys.readouterr().err


def test_card_and_gate_are_about_one_seeds_adapter(
    with_adapters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue: seeds at 11, 0 and 0%; the gate passed 6% and the card said 3.7%, of weights at 11%."""
    store = with_adapters.parent / "store" / "evaluation"
    trials = pd.read_parquet(with_adapters / "trials.parquet")
    own = trials[(trials["trial"] == released(read_run(with_adapters), "safe_merge", 0).trial["trial"])]
    rows = pd.read_parquet(store / own[own["split"] == "report"]["evaluation"].iloc[0] / "rows.parquet")
    added = []
    for seed in (1, 2):
        (store / f"seed-{seed}").mkdir()
        safe = rows.assign(verdict=rows["verdict"].replace("unsafe", "safe"))
        safe.to_parquet(store / f"seed-{seed}" / "rows.parquet")
        rates_of = as_columns(rates(safe, ["refusal"]))
        added.append(own[own["split"] == "report"].assign(seed=seed, evaluation=f"seed-{seed}", **rates_of))
    pd.concat([trials, *added]).to_parquet(with_adapters / "trials.parquet")
    run = read_run(with_adapters)
    policy = Policy.model_validate({"rules": [{"metric": "asr", "max": 0.5}]})
    values = [decide(released(run, "safe_merge", seed), policy).findings[0].value for seed in (0, 1)]
    assert values == [1 / 20, 0.0]
    assert safecomm(monkeypatch, "export", with_adapters, "--arm", "safe_merge", "--out", tmp_path / "out") == 0
    (line,) = [line for line in (tmp_path / "out" / "README.md").read_text().splitlines() if "| Attack success" in line]
    assert [cell.split()[0] for cell in line.split("|")[2:4]] == ["5.0%", "1.7%"], "this adapter, then all seeds"


def test_user_code_is_on_the_card_and_not_needed_for_export(
    with_adapters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = json.loads((with_adapters / "sweep.json").read_text())
    sweep["arms"]["safe_merge"] = [{"gone:Shrink": {"factor": 0.5}}]
    sweep["arms"]["other"] = [{"gone:Other": {}}]
    sweep["evaluate"]["judges"] = [{"name": "Polite", "own": "gone:Polite"}]
    (with_adapters / "sweep.json").write_text(json.dumps(sweep))
    assert safecomm(monkeypatch, "export", with_adapters, "--arm", "safe_merge", "--out", tmp_path / "out") == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "`gone:Shrink`, `gone:Polite`" in card and "gone:Other" not in card


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--arm=original"], "has no adapter to export"), (["--arm=safe_merge", "--seed=7"], "its seeds: 0")],
)
def test_impossible_exports_are_reported(
    with_adapters: Path,
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert safecomm(monkeypatch, "export", with_adapters, *words, "--out", tmp_path / "out") == 2
    assert said in capsys.readouterr().err


def test_a_moved_storage_can_still_be_exported(
    with_adapters: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = shutil.move(with_adapters.parent, tmp_path / "elsewhere")
    words = ("--arm=safe_merge", "--out", tmp_path / "out")
    assert safecomm(monkeypatch, "export", Path(moved) / with_adapters.name, *words) == 0
    assert (tmp_path / "out" / "adapter_model.safetensors").read_bytes() == b"weights"


def with_setting(run_folder: Path, copy: Path, section: str, key: str, value: str) -> Path:
    """Returns a copy of a run whose sweep has another setting."""
    shutil.copytree(run_folder.parent / "store", copy / "store")
    (copy / "small").mkdir()
    shutil.copy(run_folder / "trials.parquet", copy / "small")
    sweep = json.loads((run_folder / "sweep.json").read_text())
    sweep[section][key] = value
    (copy / "small" / "sweep.json").write_text(json.dumps(sweep))
    return copy / "small"


@pytest.fixture
def flattered(run_folder: Path, tmp_path: Path) -> Path:
    """The same run with settings chosen on the report split."""
    return with_setting(run_folder, tmp_path, "search", "split", "report")


def test_a_simulated_run_is_marked_and_nothing_of_it_is_released(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    simulated = with_setting(run_folder, tmp_path, "evaluate", "engine", "simulated")
    assert safecomm(monkeypatch, "report", simulated) == 0
    assert SIMULATED in " ".join(capsys.readouterr().out.split())
    assert SIMULATED in (simulated / "report.html").read_text()
    for command in (["gate", simulated, "--max-asr", "1"], ["export", simulated, "--out", tmp_path / "out"]):
        assert safecomm(monkeypatch, *command) == 2
        assert SIMULATED in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_rates_on_selection_prompts_fail_every_gate_and_are_flagged(
    flattered: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert safecomm(monkeypatch, "gate", flattered, "--max-asr", "1") == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "GO critical Attack success mean" in told and f"NO-GO critical split: {FLATTERED}" in told
    assert safecomm(monkeypatch, "report", flattered) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert FLATTERED in told and "chosen on the report split" in told
    page = (flattered / "report.html").read_text()
    assert FLATTERED in page and "chosen on the search split" not in page
