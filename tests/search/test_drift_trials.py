"""Trials of later generations: which there are, in which order they run, and when their records hold."""

import copy
from pathlib import Path
from typing import Any

from small_sweep import LEAST

from safecomm.search.arms import DRIFT, Trial, seeded
from safecomm.search.drift import GenerationQueue, before, drift_trials, tried_points
from safecomm.search.record import TrialRecord
from safecomm.search.run_folder import RunFolder
from safecomm.spec import Sweep

POINTS = {"safe_lora": [{"safe_lora.lowest": 2}, {"safe_lora.lowest": 4}]}


def sweep(storage: Path, target: float = 0.1, **drift: Any) -> Sweep:
    section = {"generations": ["lab-questions", "lab-telecom"], "policies": ["never", "search"]} | drift
    arms = {"safe_lora": [{"safe_lora": {"lowest": {"grid": [2, 4]}}}]}
    parts = {"arms": arms, "storage": str(storage), "drift": section, "search": {"target_asr": target}}
    return Sweep.model_validate({**copy.deepcopy(LEAST), **parts})


def trials_of(spec: Sweep) -> list[Trial]:
    reported = [one for arm in ("original", "undefended") for one in seeded(spec, arm, {}, "report")]
    return drift_trials(spec, reported + seeded(spec, "safe_lora", {"safe_lora.lowest": 2}, "report"), POINTS)


def test_every_policy_and_order_has_every_generation_of_the_defended_arms(tmp_path: Path) -> None:
    spec = sweep(tmp_path, starts=["continue", "pool"])
    trials = trials_of(spec)
    assert {trial.arm for trial in trials} == {"safe_lora"}
    assert {trial.split for trial in trials} == {DRIFT}
    found = [trial.generation for trial in trials if trial.generation]
    assert {(one.start, one.policy, one.data) for one in found} == {
        (start, policy, data)
        for start in ("continue", "pool")
        for policy in ("never", "search")
        for data in ((0,), (0, 1), (1,), (1, 0))
    }
    assert all(bool(one.points) == (one.policy == "search") for one in found)
    assert len({trial.id for trial in trials}) == len(trials) == 16


def test_a_trial_survives_the_way_to_its_process(tmp_path: Path) -> None:
    for trial in trials_of(sweep(tmp_path)):
        assert Trial.of(trial.as_config()) == trial


def test_a_generation_waits_for_the_one_before_and_a_failed_one_holds_up_nothing(tmp_path: Path) -> None:
    queue = GenerationQueue(trials_of(sweep(tmp_path)))
    started: list[Trial] = []
    while trial := queue.next():
        started.append(trial)
    assert {one.generation.number for one in started if one.generation} == {1}
    assert len(started) == 4
    first = started[0]
    queue.finish(first, TrialRecord.of(first, "failed", error="no disk"))
    second = queue.next()
    assert second
    assert before(second) == first
    assert queue.next() is None
    assert not queue.is_done


def test_generation_one_starts_from_the_released_adapter(tmp_path: Path) -> None:
    first, second, *_ = trials_of(sweep(tmp_path))
    assert (before(first).split, before(first).generation) == ("report", None)
    assert before(second) == first


def test_records_hold_for_the_same_data_and_limits_only(tmp_path: Path) -> None:
    spec = sweep(tmp_path)
    trial, *_ = trials_of(spec)
    RunFolder(spec).keep(TrialRecord.of(trial, "done"))
    record = RunFolder(sweep(tmp_path, policies=["never"])).find(trial)
    assert record
    assert (record.generation, record.policy, record.start, record.order) == (1, "never", "continue", 0)
    assert RunFolder(sweep(tmp_path, generations=["lab-questions", "lab-questions"])).find(trial) is None
    assert RunFolder(sweep(tmp_path, target=0.2)).find(trial) is None, "a policy may decide otherwise"


def test_a_policy_that_searches_again_leaves_out_what_failed_and_what_it_knows(tmp_path: Path) -> None:
    spec = sweep(tmp_path)
    folder = RunFolder(spec)
    good, bad = (seeded(spec, "safe_lora", point)[0] for point in POINTS["safe_lora"])
    folder.keep(TrialRecord.of(good, "done"))
    folder.keep(TrialRecord.of(bad, "failed", error="no loss"))
    searched = [*seeded(spec, "original", {}), good, bad, good]
    assert tried_points(spec, searched, folder.find) == {"safe_lora": [good.point]}
