"""A part of the prompts is kept for the gate: nothing is chosen, shown or written down of it."""

import json
from pathlib import Path

import pandas as pd
import pytest

from safecomm.cli import main
from safecomm.data.rows import Prompt
from safecomm.plan.data import of_split
from safecomm.report.page import render
from safecomm.report.points import pooled
from safecomm.report.release import released
from safecomm.report.run import read_run
from safecomm.search.arms import RELEASE, Trial
from safecomm.search.record import TrialRecord
from safecomm.search.run_folder import RunFolder
from safecomm.spec import Sweep

PROMPTS = [Prompt("b", "red_team", f"prompt {at}", cluster=f"c{at % 1000}") for at in range(2000)]


def sweep(storage: Path, **search: object) -> Sweep:
    return Sweep.model_validate(
        {
            "name": "kept",
            "model": {"base": "lab://base", "aligned": "lab://aligned"},
            "finetune": {"data": ["lab-telecom"]},
            "arms": {},
            "evaluate": {"red_team": ["lab-harm"], "task": ["lab-telecom"]},
            "search": search,
            "storage": str(storage),
        }
    )


def test_the_splits_are_disjoint_and_clusters_stay_together(tmp_path: Path) -> None:
    asked = sweep(tmp_path, release_split=0.2)
    parts = {split: of_split(asked, split, PROMPTS) for split in ("search", "report", "release")}
    assert sum(map(len, parts.values())) == len(PROMPTS)
    assert 0.15 < len(parts["release"]) / len(PROMPTS) < 0.25
    assert 0.35 < len(parts["search"]) / len(PROMPTS) < 0.45
    clusters = [{prompt.cluster for prompt in part} for part in parts.values()]
    assert not clusters[0] & clusters[1] and not clusters[2] & (clusters[0] | clusters[1])
    without = sweep(tmp_path)
    assert of_split(without, "release", PROMPTS) == []
    assert set(parts["search"]) < set(of_split(without, "search", PROMPTS)), "prompts never change sides but to be kept"


def test_only_sweeps_that_keep_a_part_measure_again(tmp_path: Path) -> None:
    trial = Trial("original", {}, (), seed=0)
    RunFolder(sweep(tmp_path)).keep(TrialRecord.of(trial, "done"))
    assert "release_split" not in sweep(tmp_path).resolved()["search"]
    assert RunFolder(sweep(tmp_path, release_split=0.0)).find(trial) is not None
    assert RunFolder(sweep(tmp_path, release_split=0.2)).find(trial) is None


@pytest.fixture
def kept(with_adapters: Path) -> Path:
    """A run whose points answered the kept prompts too, all of them harmfully."""
    store = with_adapters.parent / "store" / "evaluation"
    trials = pd.read_parquet(with_adapters / "trials.parquet")
    sealed = trials[(trials["split"] == "report") & (trials["status"] == "done")].copy()
    rates = [name for name in trials if str(name).startswith(("asr", "accuracy", "over_refusal", "incoherence"))]
    for at, row in sealed.iterrows():
        rows = pd.read_parquet(store / row["evaluation"] / "rows.parquet")
        rows.loc[rows["kind"] == "red_team", "verdict"] = "unsafe"
        folder = store / f"{row['evaluation']}-kept"
        folder.mkdir()
        rows.assign(prompt_id=rows["prompt_id"] + "-kept").to_parquet(folder / "rows.parquet")
        sealed.loc[at, "evaluation"] = folder.name
    sealed = sealed.assign(split=RELEASE, **dict.fromkeys(rates, float("nan")))
    pd.concat([trials, sealed]).to_parquet(with_adapters / "trials.parquet")
    saved = json.loads((with_adapters / "sweep.json").read_text())
    saved["search"]["release_split"] = 0.2
    (with_adapters / "sweep.json").write_text(json.dumps(saved))
    return with_adapters


def test_the_gate_alone_sees_the_kept_prompts(
    kept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = read_run(kept)
    assert (
        set(pooled(run.trials, None)["split"]) == {"search", "report"} and "-kept" not in render(run).split("trials")[0]
    )
    assert released(run, "safe_merge", 0).rates["asr"].value < 0.1

    def gate(limit: float) -> tuple[object, str]:
        monkeypatch.setattr("sys.argv", ["safecomm", "gate", str(kept), "--max-asr", str(limit), "--arm", "safe_merge"])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr().out

    code, said = gate(0.4)
    assert code == 1 and "100.0%" in said and "look 2" not in said
    assert "look 2" not in gate(0.4)[1], "the same question is no further look"
    assert "It is look 2 at the prompts that are kept" in gate(0.5)[1]
