"""What `safecomm view` shows of a sweep: the trials that have ended so far, and in the end the report itself."""

import json
import re
from pathlib import Path

import pytest
from live_run import PROMPTS, LiveRun

from safecomm.cli.view import _watched
from safecomm.report.live import LiveReport
from safecomm.search.activity import Activity
from safecomm.search.run_folder import RunFolder
from safecomm.spec import Sweep
from safecomm.storage.shared import CACHE
from safecomm.sweep.lock import only_run


@pytest.fixture
def live(tmp_path: Path) -> LiveRun:
    return LiveRun(tmp_path / "runs")


def test_nothing_has_ended_yet(live: LiveRun) -> None:
    report = LiveReport(live.folder)
    assert report.status().line.endswith("Ended so far: no trial.") and not report.status().recent
    assert "No trial has succeeded yet" in report.page()


def test_each_trial_that_ends_makes_a_new_version(live: LiveRun) -> None:
    report = LiveReport(live.folder)
    versions = [report.status().version]
    for trial in (("original", None), ("undefended", None), ("safe_lora", 2)):
        live.end(*trial)
        versions.append(report.status().version)
        assert trial[0] in report.page()
    assert len(set(versions)) == 4


def test_the_status_counts_each_split_and_names_the_last_trials(live: LiveRun) -> None:
    live.end("original")
    live.end("safe_lora", 2)
    live.end("safe_lora", 4, error="its fine-tune failed: the loss is nan")
    live.end("original", split="report")
    status = LiveReport(live.folder).status()
    assert status.line.endswith(": search: 3 of at most 3 trials, 1 failed; report: 1 trial.")
    assert status.recent[0].startswith("original, report: attack success ")
    assert status.recent[1] == "safe_lora lowest 4, search: failed: its fine-tune failed: the loss is nan"


def test_answers_are_shown_as_they_arrive_and_those_of_the_report_split_take_their_place(live: LiveRun) -> None:
    report = LiveReport(live.folder)
    found = []
    for split in ("search", "report"):
        for arm in ("original", "undefended"):
            live.end(arm, split=split)
            found.append(re.findall(r"([\d,]+) answers[a-z ]*on the (\w+) split", report.page()))
    one, both = str(PROMPTS), str(2 * PROMPTS)
    assert found == [[(one, "search")], [(both, "search")], [(both, "search")], [(both, "report")]]


def test_trials_of_another_model_and_of_removed_arms_are_left_out(live: LiveRun) -> None:
    live.end("original")
    live.end("safe_lora", 2)
    report = LiveReport(live.folder)
    changed = live.sweep.resolved()
    del changed["arms"]["safe_lora"]
    (live.folder / "sweep.json").write_text(json.dumps(changed))
    live.end("undefended")
    assert ": search: 2 of" in report.status().line
    changed["model"]["aligned"] = "lab://base"
    live.run = RunFolder(Sweep.model_validate(changed))
    live.end("original", split="report")
    assert report.status().line.endswith(": report: 1 trial.")


def test_before_the_report_split_the_choice_so_far_is_named(live: LiveRun) -> None:
    for trial in (("original", None), ("undefended", None), ("safe_lora", 2)):
        live.end(*trial)
    page = LiveReport(live.folder).page()
    assert "No recommendation yet" in page
    assert "Chosen so far on the search split: " in page and "No trial has both" not in page


def test_a_viewed_folder_keeps_its_files_and_may_have_any_name(live: LiveRun, monkeypatch: pytest.MonkeyPatch) -> None:
    live.end("original")
    moved = live.folder.rename(live.folder.with_name("moved"))
    (moved / "optuna.journal").write_text("kept")
    monkeypatch.chdir(moved)
    assert ": search: 1 of" in LiveReport(Path(".")).status().line
    assert (moved / "optuna.journal").exists()


def test_at_the_end_the_page_is_the_report_and_a_later_trial_continues_it(live: LiveRun) -> None:
    for split in ("search", "report"):
        for arm in ("original", "undefended"):
            live.end(arm, split=split)
    report = LiveReport(live.folder)
    written = live.publish().read_text(encoding="utf-8")
    assert report.page() == written
    live.end("safe_lora", 2)
    assert "safe_lora lowest 2" in report.status().recent[0] and report.page() != written


def test_the_status_says_whether_the_sweep_runs(live: LiveRun) -> None:
    live.end("original")
    report = LiveReport(live.folder)
    assert report.status().line.startswith("Nothing runs; run the sweep again to continue it. Ended so far")
    with only_run(live.folder, print):
        assert report.status().line.startswith("The sweep is running. ")
    live.publish()
    assert report.status().line.startswith("The sweep has ended. ")
    with only_run(live.folder, print):  # with further arms
        assert report.status().line.startswith("The sweep is running. ")


def test_what_the_driver_does_is_shown_while_it_runs(live: LiveRun) -> None:
    report = LiveReport(live.folder)
    line, trials = "search: 1 of 3 trials ended, 9 s spent, ~20 s left", ["safe_lora lowest=2: evaluation"]
    fleet = "900 tokens/s, 3.1 answers/s, 40 waiting; target 1 of 2 replicas"
    Activity(line, trials, fleet).write(live.folder)
    assert (
        report.status().running == [] and not report.status().fleet and "9 s spent" not in report.status().line
    )  # its driver is gone
    with only_run(live.folder, print):
        status = report.status()
        assert status.line.startswith(f"The sweep is running. {line}. Ended")
        assert status.running == trials and status.fleet == fleet
        (live.folder / "activity.json").write_text('{"line": 3, "trials": "x"}')
        assert report.status().running == []


def test_arms_are_not_compared_before_all_are_measured(live: LiveRun) -> None:
    for split in ("search", "report"):
        for arm in ("undefended", "safe_lora"):
            live.end(arm, 2 if arm == "safe_lora" else None, split)
    report = LiveReport(live.folder)
    assert "Comparison of the arms" not in report.page()
    live.publish()
    assert "Comparison of the arms" in report.page()


def test_a_run_in_a_bucket_is_viewed_on_any_node_and_the_drivers_files_stay(
    tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path / "driver"))
    live = LiveRun(bucket)
    live.end("original")
    (live.folder / "plan.json").write_text("not published yet")
    for node in ("driver", "laptop"):
        monkeypatch.setenv(CACHE, str(tmp_path / node))
        report = LiveReport(_watched(f"{bucket}/least"))
        assert ": search: 1 of at most 3" in report.status().line
    assert (live.folder / "plan.json").read_text() == "not published yet"
    monkeypatch.setenv(CACHE, str(tmp_path / "driver"))
    live.end("undefended")
    monkeypatch.setenv(CACHE, str(tmp_path / "laptop"))
    assert ": search: 2 of" in report.status().line and "undefended" in report.page()
