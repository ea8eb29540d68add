"""Early stopping compares points by their means over seeds, and stops one that an earlier one beats."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from small_sweep import LEAST

from safecomm.search.arms import Trial
from safecomm.search.early_stopping import EarlyStopping, asking
from safecomm.search.equivalence import EquivalentPoints
from safecomm.search.profile_cache import ProfileCache
from safecomm.search.record import TrialRecord
from safecomm.search.search_queue import SearchQueue
from safecomm.spec import Sweep
from safecomm.storage.names import ROWS
from safecomm.storage.store import Store

N = 60


def sweep(storage: Path, **changes: Any) -> Sweep:
    arms = {"scaled": [{"scale": {"factor": {"grid": [0.2, 0.8]}}}]}
    return Sweep.model_validate(LEAST | {"arms": arms, "storage": str(storage), **changes})


def queue_of(made: Sweep, storage: Path, records: dict[str, TrialRecord]) -> SearchQueue:
    equivalent = EquivalentPoints(made, ProfileCache(made))
    return SearchQueue(made, lambda trial: records.get(trial.id), storage / "journal", equivalent)


def evaluation(store: Store, key: str, unsafe: int) -> Path:
    """Writes rows in which the first `unsafe` harmful prompts are answered unsafely, and all questions correctly."""
    rows = [
        {"prompt_id": f"{kind}-{at}", "benchmark": "b", "kind": kind, "verdict": hit if at < hits else miss}
        for kind, hit, miss, hits in (("red_team", "unsafe", "safe", unsafe), ("task", "right", "wrong", N))
        for at in range(N)
    ]
    folder = store.folder("evaluation", key)
    folder.mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(folder / ROWS)
    return folder


def over(trial: Trial, evaluation: str) -> TrialRecord:
    return TrialRecord.of(trial, "done", share=1.0, evaluation=evaluation)


def test_early_stopping_is_off_without_racing_or_with_more_seeds_than_can_run_at_a_time(tmp_path: Path) -> None:
    for changes in ({"seeds": 17}, {"search": {"racing": False}}):
        made = sweep(tmp_path, **changes)
        assert EarlyStopping.of(made, queue_of(made, tmp_path, {}), 4, Store(tmp_path)) is None


@pytest.mark.ray
def test_a_trial_is_stopped_by_a_better_one_that_ended_in_an_earlier_run(tmp_path: Path, ray_session: None) -> None:
    made, store = sweep(tmp_path), Store(tmp_path / "store")
    original, undefended, good, bad = queue_of(made, tmp_path, {}).trials
    for key, unsafe in (("original", 0), ("undefended", 55), ("good", 5)):
        evaluation(store, key, unsafe)
    trials = {"original": original, "undefended": undefended, "good": good}
    records = {trial.id: over(trial, key) for key, trial in trials.items()}
    race = EarlyStopping.of(made, queue_of(made, tmp_path, records), 4, store)
    assert race is not None
    assert race.entry(undefended)["rungs"] == [] and race.entry(bad)["rungs"] == race.rungs

    reports: list[dict[str, Any]] = []
    entry = race.entry(bad)
    reason = asking(entry, reports.append)(race.rungs[0], evaluation(store, "bad", 50))
    assert good.title in reason and "attack success" in reason
    assert reports == [{"rung": 1, "rungs": len(race.rungs) + 1}]


@pytest.mark.ray
def test_a_failed_trial_and_the_original_stop_no_trial(tmp_path: Path, ray_session: None) -> None:
    made, store = sweep(tmp_path), Store(tmp_path / "store")
    original, undefended, failed, bad = queue_of(made, tmp_path, {}).trials
    evaluation(store, "original", 0)
    evaluation(store, "undefended", 55)
    records = {trial.id: over(trial, trial.arm) for trial in (original, undefended)}
    records[failed.id] = TrialRecord.of(failed, "failed", error="no memory")
    race = EarlyStopping.of(made, queue_of(made, tmp_path, records), 4, store)
    assert race is not None
    look = asking(race.entry(bad), lambda report: None)
    assert look(race.rungs[0], evaluation(store, "bad", 50)) == ""


@pytest.mark.ray
def test_a_point_whose_seed_ended_in_an_earlier_run_is_compared_by_the_mean_over_its_seeds(
    tmp_path: Path, ray_session: None
) -> None:
    made, store = sweep(tmp_path, seeds=2), Store(tmp_path / "store")
    *references, good_0, good_1, bad_0, bad_1 = queue_of(made, tmp_path, {}).trials
    for key, unsafe in (("original", 0), ("undefended", 55), ("good", 5), ("bad", 10)):
        evaluation(store, key, unsafe)
    records = {trial.id: over(trial, trial.arm) for trial in references}
    records |= {good_0.id: over(good_0, "good"), good_1.id: over(good_1, "good"), bad_1.id: over(bad_1, "bad")}
    for unsafe, stops in ((0, False), (50, True)):
        race = EarlyStopping.of(made, queue_of(made, tmp_path, records), 8, store)
        assert race is not None
        look = asking(race.entry(bad_0), lambda report: None)
        reason = look(race.rungs[0], evaluation(store, f"bad-{unsafe}", unsafe))
        assert bool(reason) == stops
    assert reason.endswith(good_0.title)
