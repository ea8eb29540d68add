"""The prompts on which settings are chosen."""

import sys
from pathlib import Path

import pytest

from safecomm.cli import main
from safecomm.plan.data import split_prompts
from safecomm.search.arms import Trial
from safecomm.search.record import TrialRecord
from safecomm.search.run_folder import RunFolder
from safecomm.spec import read_sweep

LAB = Path(__file__).parents[2] / "sweeps" / "lab.yaml"


def test_settings_are_chosen_on_prompts_of_their_own() -> None:
    sweep = read_sweep(LAB)
    searched, published = (
        {prompt.prompt_id for prompt in split_prompts(sweep, split)} for split in ("search", "report")
    )
    assert searched and published and not searched & published


def test_searching_on_the_report_split_asks_its_prompts_and_takes_no_other_trial_for_its_own(tmp_path: Path) -> None:
    fair, flattering = (
        read_sweep(LAB, [f"storage={tmp_path}", f"search.split={split}"]) for split in ("search", "report")
    )
    chosen, published = (split_prompts(flattering, split) for split in ("search", "report"))
    assert chosen == published == split_prompts(fair, "report")
    trial = Trial("undefended", {}, (), 0)
    RunFolder(fair).keep(TrialRecord.of(trial, "done"))
    assert RunFolder(fair).find(trial) and not RunFolder(flattering).find(trial)


def test_searching_on_the_report_split_needs_a_flag(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = ["safecomm", "run", str(LAB), "--set", "search.split=report", "--storage", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "add --search-on-report-split" in " ".join(capsys.readouterr().err.split())
    assert not any(tmp_path.iterdir())
