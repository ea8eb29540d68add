"""A sweep that repeats a paper compares its arms with each other, on the same prompts and for the same target."""

import json
from pathlib import Path

import pytest

from safecomm.report.arms import arm_differences, hypervolumes
from safecomm.report.page import render
from safecomm.report.run import Run, headline, read_run
from safecomm.report.table import results_table
from safecomm.spec import read_sweep

JUDGED = {"judges": [{"name": "refusal", "model": None}]}


@pytest.fixture
def repeating(with_adapters: Path) -> Run:
    """The run as one of the study's, judged by phrases."""
    sweep = read_sweep(Path(__file__).parents[2] / "sweeps" / "paper-llama-2-7b.yaml").resolved()
    saved = json.loads((with_adapters / "sweep.json").read_text())
    kept = {"arms": saved["arms"], "search": saved["search"], "evaluate": sweep["evaluate"] | JUDGED}
    (with_adapters / "sweep.json").write_text(json.dumps(sweep | kept))
    return read_run(with_adapters)


def test_arms_are_compared_at_a_common_target(repeating: Run) -> None:
    """safe_instruct: 2 + 1 of 20 unsafe, 16 - 1 right; safe_merge: 0 + 1 and 12 - 1."""
    found = {one.metric: one for one in arm_differences(repeating, headline(repeating))}
    assert set(found) == {"asr", "accuracy", "over_refusal"}
    asr, accuracy = found["asr"], found["accuracy"]
    assert (asr.first, asr.second) == ("safe_instruct", "safe_merge")
    assert asr.difference.value == pytest.approx((3 - 1) / 20) and accuracy.difference.value == pytest.approx(4 / 20)
    assert asr.difference.low < 0 < asr.difference.high and asr.difference.p > 0.2


def test_every_arm_has_its_own_hypervolume(repeating: Run) -> None:
    volumes, together = hypervolumes(repeating), repeating.outcome["hypervolume"]
    assert set(volumes) == {"safe_instruct", "safe_merge"}
    assert all(0 < volume <= together for volume in volumes.values()) and max(volumes.values()) < 1


def test_only_reports_on_papers_show_them(repeating: Run, run_folder: Path) -> None:
    pages = render(repeating), render(read_run(run_folder))
    assert ["Comparison of the arms" in page for page in pages] == [True, False]
    assert len(results_table(repeating.folder).renderables) > len(results_table(run_folder).renderables)
