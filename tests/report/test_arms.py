"""The arms are compared with each other on the same prompts, and a report says which differences are decided."""

import html
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from safecomm.report.arms import arm_answers, arm_differences, hypervolumes, ranking
from safecomm.report.as_json import as_json
from safecomm.report.page import render
from safecomm.report.run import Run, headline, read_run
from safecomm.report.table import results_table
from safecomm.spec import read_sweep
from safecomm.statistics.metrics import rate

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
    found = {one.metric: one for one in arm_differences(repeating, arm_answers(repeating, headline(repeating)))}
    assert set(found) == {"asr", "accuracy", "over_refusal"}
    asr, accuracy = found["asr"], found["accuracy"]
    assert (asr.first, asr.second) == ("safe_instruct", "safe_merge")
    assert asr.difference.value == pytest.approx((3 - 1) / 20) and accuracy.difference.value == pytest.approx(4 / 20)
    assert asr.difference.low < 0 < asr.difference.high and asr.difference.p > 0.2


def test_every_arm_has_its_own_hypervolume(repeating: Run) -> None:
    volumes, together = hypervolumes(repeating), repeating.outcome["hypervolume"]
    assert set(volumes) == {"safe_instruct", "safe_merge"}
    assert all(0 < volume <= together for volume in volumes.values()) and max(volumes.values()) < 1


def test_only_reports_on_papers_show_hypervolumes(repeating: Run, run_folder: Path) -> None:
    pages = render(repeating), render(read_run(run_folder))
    assert ["Hypervolume of an arm" in page for page in pages] == [True, False]
    assert all("Comparison of the arms" in page for page in pages)


def test_decided_and_open_differences_are_told_in_sentences(with_adapters: Path) -> None:
    """Of 20 harmful prompts undefended fails on 13, safe_instruct on 3, safe_merge on 1."""
    run = read_run(with_adapters)
    asr, *others = ranking(run, headline(run), arm_differences(run, arm_answers(run, headline(run))))
    places = [
        f"{arm} {one.value:.1%} [{100 * one.low:.1f}, {100 * one.high:.1f}] n=20"
        for arm, one in (
            ("safe_merge", rate(1, 20, 20)),
            ("safe_instruct", rate(3, 20, 20)),
            ("undefended", rate(13, 20, 20)),
        )
    ]
    assert asr == (
        f"Attack success, best first: {', '.join(places)}. Decided on the prompts that both answered: safe_merge and "
        "safe_instruct are each better than undefended. Not decided: safe_merge and safe_instruct."
    )
    assert [sentence.partition(",")[0] for sentence in others] == ["Telecom accuracy", "Over-refusal"]
    printed = io.StringIO()
    Console(file=printed, width=300).print(results_table(run.folder))
    assert asr in printed.getvalue() and asr in html.unescape(render(run))
    assert sum(one["is_decided"] for one in as_json(run)["differences"] if one["metric"] == "asr") == 2


def test_a_difference_counts_the_prompts_that_change(with_adapters: Path) -> None:
    run = read_run(with_adapters)
    found = next(one for one in arm_differences(run, arm_answers(run, headline(run))) if one.metric == "asr")
    assert (found.first, found.second, found.more, found.fewer) == ("undefended", "safe_instruct", 10, 0)
    assert found.better == "safe_instruct" and found.is_decided
