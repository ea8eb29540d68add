"""The queue provides every point once, reports results to the sampler, and resumes after an interruption."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from small_sweep import LEAST

from safecomm.search.arms import Trial
from safecomm.search.equivalence import EquivalentPoints
from safecomm.search.profile_cache import ProfileCache
from safecomm.search.record import TrialRecord
from safecomm.search.search_queue import SearchQueue
from safecomm.spec import Sweep
from safecomm.spec.search import Search
from safecomm.statistics.metrics import Rate

MERGE = {"safe_merge": {"lowest": {"randint": [1, 28]}, "weight": {"uniform": [0.5, 0.9]}}}


def sweep(trials: int = 6, seeds: int = 1, **arms: Any) -> Sweep:
    search = {"trials": trials, "algorithm": "tpe"}
    return Sweep.model_validate(LEAST | {"arms": arms, "search": search, "seeds": seeds})


def outcome(trial: Trial) -> TrialRecord:
    """Returns rates as a smooth function of the point: merging more lowers attack success and accuracy."""
    weight = float(trial.point.get("safe_merge.weight", 1.0))
    values = {"asr": weight / 2, "accuracy": weight, "over_refusal": 1 - weight}
    rates = {metric: Rate(value, 0.0, 1.0, 100, 0.0) for metric, value in values.items()}
    return TrialRecord.of(trial, "done", rates=rates)


class Bench:
    """Runs all trials of a queue and keeps the records like a run folder."""

    def __init__(self) -> None:
        self.records: dict[str, TrialRecord] = {}

    def find(self, trial: Trial) -> TrialRecord | None:
        return self.records.get(trial.id)

    def queue(self, sweep: Sweep, journal: Path) -> SearchQueue:
        outcomes = EquivalentPoints(sweep, ProfileCache(sweep.model_copy(update={"storage": str(journal.parent)})))
        return SearchQueue(sweep, self.find, journal, outcomes)

    def work(
        self, queue: SearchQueue, most: int = 1000, result: Callable[[Trial], TrialRecord] = outcome
    ) -> list[Trial]:
        done = []
        while len(done) < most and (trial := queue.next()):
            self.records[trial.id] = result(trial)
            queue.finish(trial, self.records[trial.id])
            done.append(trial)
        return done


def test_grids_are_enumerated_and_ranges_sampled_up_to_the_budget(tmp_path: Path) -> None:
    grid = {"safe_merge": {"lowest": {"grid": [7, 14]}, "weight": {"grid": [0.5, 0.7, 0.9]}}}
    queue = Bench().queue(sweep(grid=[grid], sampled=[MERGE]), tmp_path / "journal")
    trials = Bench().work(queue)
    arms = [trial.arm for trial in trials]
    assert arms[:2] == ["original", "undefended"]
    assert (arms.count("grid"), arms.count("sampled")) == (6, 6)
    assert len({trial.id for trial in trials}) == len(trials) == 14
    assert queue.is_done


def test_a_trial_has_constants_in_its_chain(tmp_path: Path) -> None:
    (trial,) = [t for t in Bench().work(Bench().queue(sweep(1, sampled=[MERGE]), tmp_path / "j")) if t.point]
    ((name, settings),) = trial.chain
    assert name == "safe_merge"
    assert settings["combine"] == "cat"
    assert 1 <= settings["lowest"] <= 28 and 0.5 <= settings["weight"] <= 0.9
    assert Trial.of(trial.as_config()) == trial


def test_every_point_is_tried_with_every_seed(tmp_path: Path) -> None:
    trials = Bench().work(Bench().queue(sweep(3, seeds=2, sampled=[MERGE]), tmp_path / "journal"))
    assert len(trials) == 2 * (2 + 3)
    for trial in trials:
        assert sum(other.point == trial.point and other.arm == trial.arm for other in trials) == 2


def spread(bench: Bench, queue: SearchQueue, at_a_time: int, most: int = 1000) -> list[int]:
    """Runs trials concurrently, each as long as the others; returns how many run while the queue has none ready."""
    running, starved, ended = [], [], 0
    while ended < most:
        while len(running) < at_a_time and (trial := queue.next()):
            running.append(trial)
        if not running:
            break
        if len(running) < at_a_time:
            starved.append(len(running))
        trial = running.pop(0)
        bench.records[trial.id] = outcome(trial)
        queue.finish(trial, bench.records[trial.id])
        ended += 1
    return starved


LARGE = sweep(48, sampled=[MERGE])
"""Rounds of 16 points, then of 6, and two reference arms."""


def test_a_large_search_keeps_a_rounds_number_of_trials_running_but_for_the_ends_of_the_first_and_the_last_round(
    tmp_path: Path,
) -> None:
    bench = Bench()
    assert len(spread(bench, bench.queue(LARGE, tmp_path / "journal"), at_a_time=6)) == 5 + 5
    assert len(bench.records) == 2 + 48


def test_a_large_search_proposes_the_same_points_however_many_run_and_wherever_it_is_interrupted(
    tmp_path: Path,
) -> None:
    def points(name: str, at_a_time: int, stops: tuple[int, ...] = ()) -> list[str]:
        bench, journal = Bench(), tmp_path / name
        for most in (*stops, 1000):
            spread(bench, queue := bench.queue(LARGE, journal), at_a_time, most)
        return [trial.id for trial in queue.trials]

    alone = points("alone", 1)
    assert points("beside others", 7) == alone
    assert points("interrupted", 5, (3, 14, 4, 9)) == alone


def test_a_large_search_learns_from_the_rounds_before_the_last(tmp_path: Path) -> None:
    def reversed_outcome(trial: Trial) -> TrialRecord:
        rates = {name: Rate(1 - rate.value, 0.0, 1.0, 100, 0.0) for name, rate in outcome(trial).rates.items()}
        return TrialRecord.of(trial, "done", rates=rates)

    def points(name: str, result: Callable[[Trial], TrialRecord]) -> list[str]:
        bench = Bench()
        return [trial.id for trial in bench.work(bench.queue(LARGE, tmp_path / name), result=result)]

    ones, others = points("ones", outcome), points("others", reversed_outcome)
    assert ones[: 2 + 16] == others[: 2 + 16] and not set(ones[2 + 16 :]) & set(others[2 + 16 :])


def test_a_finished_queue_is_empty_after_a_restart(tmp_path: Path) -> None:
    bench, journal = Bench(), tmp_path / "journal"
    done = bench.work(bench.queue(sweep(sampled=[MERGE]), journal))
    again = bench.queue(sweep(sampled=[MERGE]), journal)
    assert again.is_done
    assert again.next() is None
    assert {trial.id for trial in again.trials} == {trial.id for trial in done}


def test_an_interrupted_queue_proposes_only_missing_points(tmp_path: Path) -> None:
    bench, journal = Bench(), tmp_path / "journal"
    stopped = bench.queue(sweep(sampled=[MERGE]), journal)
    done = bench.work(stopped, most=5)
    lost = stopped.next()  # handed out, but its process is killed
    assert lost is not None
    rest = bench.work(bench.queue(sweep(sampled=[MERGE]), journal))
    assert lost.id in {trial.id for trial in rest}
    assert not {trial.id for trial in rest} & {trial.id for trial in done}
    assert len(done) + len(rest) == 2 + 6


def test_a_larger_budget_adds_points(tmp_path: Path) -> None:
    bench, journal = Bench(), tmp_path / "journal"
    bench.work(bench.queue(sweep(4, sampled=[MERGE]), journal))
    more = bench.work(bench.queue(sweep(7, sampled=[MERGE]), journal))
    assert len(more) == 3
    assert len({str(trial.point) for trial in more}) == 3


def test_a_failed_point_does_not_stop_the_others_and_is_retried_in_the_next_run(tmp_path: Path) -> None:
    bench, journal = Bench(), tmp_path / "journal"
    queue = bench.queue(sweep(3, sampled=[MERGE]), journal)
    handed_out = []
    while trial := queue.next():
        handed_out.append(trial)
        queue.finish(trial, TrialRecord.of(trial, "failed", error="out of memory"))
    assert len(handed_out) == 5
    assert len(bench.work(bench.queue(sweep(3, sampled=[MERGE]), journal))) == 5


def test_the_search_moves_towards_better_points(tmp_path: Path) -> None:
    single = sweep(24, sampled=[MERGE]).model_copy(
        update={"search": sweep(24).search.model_copy(update={"objectives": ["asr"]})}
    )
    trials = [t for t in Bench().work(Bench().queue(single, tmp_path / "journal")) if t.arm == "sampled"]
    weights = [float(trial.point["safe_merge.weight"]) for trial in trials]
    assert sum(weights[-8:]) / 8 < sum(weights[:8]) / 8


def test_a_point_that_stopped_early_counts_as_missing_the_target(tmp_path: Path) -> None:
    """Issue: rates of a tenth of the prompts were reported to the sampler as if complete."""
    spec = sweep(6, sampled=[MERGE])
    queue, journal = Bench().queue(spec, tmp_path / "journal"), tmp_path / "journal"
    while trial := queue.next():
        lucky = {"asr": Rate(0.0, 0.0, 1.0, 10, 0.0), "accuracy": Rate(1.0, 0.0, 1.0, 10, 0.0)}
        stopped = TrialRecord.of(trial, "stopped", share=0.1, rates=outcome(trial).rates | lucky)
        queue.finish(trial, stopped if trial.seed == 0 and trial.arm == "sampled" else outcome(trial))
    study = optuna.load_study(study_name="sampled", storage=JournalStorage(JournalFileBackend(str(journal))))
    violations = [value for proposal in study.trials for value in proposal.constraints.values()]
    assert len(violations) == 6 and all(value > 0 for value in violations)


def test_a_sampler_learns_which_points_keep_the_target(tmp_path: Path) -> None:
    spec = sweep(12, sampled=[MERGE])
    strict = spec.model_copy(update={"search": spec.search.model_copy(update={"target_asr": 0.3})})
    Bench().work(Bench().queue(strict, tmp_path / "journal"))
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "journal")))
    for proposal in optuna.load_study(study_name="sampled", storage=storage).trials:
        (violation,) = proposal.constraints.values()
        assert violation == pytest.approx(proposal.values[0] - 0.3)


@pytest.mark.parametrize("algorithm", ["random", "tpe", "nsga2", "cmaes"])
def test_every_sampler_makes_the_same_proposals_after_an_interruption(tmp_path: Path, algorithm: str) -> None:
    search = sweep(10).search.model_copy(update={"algorithm": algorithm, "objectives": ["asr"]})
    spec = sweep(10, sampled=[MERGE]).model_copy(update={"search": search})

    def way(journal: str, *stops: int) -> list[str]:
        bench = Bench()
        for most in (*stops, 1000):
            queue = bench.queue(spec, tmp_path / journal)
            bench.work(queue, most)
            queue.next()  # handed out, and lost
        return [trial.id for trial in bench.queue(spec, tmp_path / journal).trials]

    assert len(set(way("straight"))) == 12
    assert way("straight") == way("stopped", 3, 4)


def test_an_arm_may_have_its_own_budget_and_points(tmp_path: Path) -> None:
    own = {"arms": {"sampled": {"trials": 3, "points": [{"safe_merge.lowest": 28, "safe_merge.weight": 0.7}]}}}
    spec = sweep(8, sampled=[MERGE], other=[MERGE])
    search = Search.model_validate({**spec.search.model_dump(), **own})
    trials = Bench().work(Bench().queue(spec.model_copy(update={"search": search}), tmp_path / "journal"))
    of_arm = {arm: [trial.point for trial in trials if trial.arm == arm] for arm in ("sampled", "other")}
    assert (len(of_arm["sampled"]), len(of_arm["other"])) == (3, 8)
    assert of_arm["sampled"][0] == {"safe_merge.lowest": 28, "safe_merge.weight": 0.7}


def test_a_small_space_ends_when_its_points_are_found(tmp_path: Path) -> None:
    few = {"safe_merge": {"lowest": {"choice": [7, 14, 28]}, "weight": 0.7}}
    queue = Bench().queue(sweep(20, few=[few]), tmp_path / "journal")
    trials = [trial for trial in Bench().work(queue) if trial.arm == "few"]
    assert sorted(trial.point["safe_merge.lowest"] for trial in trials) == [7, 14, 28]
    assert queue.is_done
    (names,) = {len(queue.names(trial)) for trial in trials}
    assert names == 1
