"""A report warns where a further judge finds far more answers unsafe than the judge that decides."""

import io
import json
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from safecomm.report.disagreement import disagreements, warnings_of
from safecomm.report.gate import decide
from safecomm.report.guide import guide
from safecomm.report.page import render
from safecomm.report.policy import Policy, Rule
from safecomm.report.release import released
from safecomm.report.run import headline, read_run
from safecomm.report.table import results_table
from safecomm.statistics.metrics import as_columns, rate


@pytest.fixture
def judged_twice(with_adapters: Path) -> Path:
    """The run with a second judge, which finds 19 of safe_merge's 20 answers unsafe, and agrees on all other arms."""
    saved = json.loads((with_adapters / "sweep.json").read_text())
    (with_adapters / "sweep.json").write_text(json.dumps(saved | {"evaluate": {"judges": ["refusal", "compliance"]}}))
    trials = pd.read_parquet(with_adapters / "trials.parquet")
    for part in ("", "_low", "_high", "_n", "_unscored"):
        trials[f"asr@compliance{part}"] = trials[f"asr{part}"]
    for name, value in as_columns({"asr@compliance": rate(19, 20, 20)}).items():
        trials.loc[trials["arm"] == "safe_merge", name] = value
    trials.to_parquet(with_adapters / "trials.parquet")
    return with_adapters


def test_every_place_that_shows_the_rate_warns(judged_twice: Path) -> None:
    run = read_run(judged_twice)
    (warning,) = disagreements(run, headline(run))
    assert warning.startswith("safe_merge: refusal, which decides, judges 5.0% [") and "compliance 95.0% [" in warning
    printed = io.StringIO()
    Console(file=printed, width=400).print(results_table(judged_twice))
    assert warning in printed.getvalue() and warning in render(run)
    assert [part.question for part in guide(run) if warning in part.sentences] == ["What does it not cover?"]
    policy = Policy(rules=[Rule.model_validate({"metric": "asr", "max": 0.9})])
    assert warning in decide(released(run, "safe_merge", 0), policy).notes
    assert not [note for note in decide(released(run, "safe_instruct", 0), policy).notes if "which decides" in note]


def test_intervals_that_overlap_give_no_warning() -> None:
    row = as_columns({"asr": rate(3, 20, 20), "asr@other": rate(6, 20, 20), "asr@lenient": rate(0, 20, 20)})
    assert not warnings_of("arm", row, ["first", "other", "lenient", "without rates"])
    assert not warnings_of("arm", row, [])
