"""Results are titled by the sweep's domain, and older runs without a domain stay readable."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from huggingface_hub import ModelCard
from rich.console import Console

from safecomm.cli import main
from safecomm.report.page import render
from safecomm.report.run import headline, read_run
from safecomm.report.samples import samples
from safecomm.report.table import results_table

MEDICAL = {"domain": "medical", "evaluate": {"judges": ["refusal"], "task": [{"name": "pubmedqa"}]}}


def rewrite(run: Path, changes: dict[str, Any], kind: str) -> Path:
    """Gives a run another sweep, and its rows another name of the kind `task`."""
    sweep = json.loads((run / "sweep.json").read_text()) | changes
    text = json.dumps(sweep).replace("lab-teleqna", "pubmedqa")
    (run / "sweep.json").write_text(text)
    for path in (run.parent / "store" / "evaluation").glob("*/rows.parquet"):
        rows = pd.read_parquet(path)
        rows.assign(kind=rows["kind"].replace("task", kind)).to_parquet(path)
    return run


def printed(run: Path) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(results_table(run))
    return console.export_text()


@pytest.fixture
def medical(with_adapters: Path) -> Path:
    trials = pd.read_parquet(with_adapters / "trials.parquet")
    trials.assign(data="pubmedqa-artificial").rename(
        columns=lambda name: name.replace("lab-teleqna", "pubmedqa")
    ).to_parquet(with_adapters / "trials.parquet")
    return rewrite(with_adapters, MEDICAL, "task")


def test_a_medical_run_never_says_telecom(
    medical: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = render(read_run(medical))
    for words in (["export", "--out", str(tmp_path / "out")], ["gate", "--min-accuracy=0.9"]):
        monkeypatch.setattr(sys, "argv", ["safecomm", words[0], str(medical), *words[1:]])
        with pytest.raises(SystemExit):
            main()
    card, said = (tmp_path / "out" / "README.md").read_text(), capsys.readouterr().out
    for text in (page, printed(medical), card, said):
        assert "Medical accuracy" in text
        assert "telecom" not in text.lower()
    assert ModelCard(card).data.tags == ["safecomm", "lora", "medical"] and "| pubmedqa | MIT |" in card


def test_runs_without_a_domain_are_still_readable(with_adapters: Path) -> None:
    former = {"evaluate": {"judges": ["refusal"], "telecom": [{"name": "teleqna"}]}}
    run = read_run(rewrite(with_adapters, former, "telecom"))
    assert run.sweep["evaluate"]["task"] == [{"name": "teleqna"}] and run.titles["accuracy"] == "Telecom accuracy"
    assert {prompt.kind for prompt in samples(run, headline(run)).prompts} == {"red_team", "task", "over_refusal"}
    assert "Telecom accuracy" in printed(run.folder)
