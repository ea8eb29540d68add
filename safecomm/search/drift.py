"""The trials of a drift study (section `drift`): later generations of every arm's best adapter."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from safecomm.search.arms import DRIFT, Point, Trial
from safecomm.search.generation import Generation
from safecomm.search.queue import TrialQueue
from safecomm.search.record import TrialRecord
from safecomm.spec import Sweep


def tried_points(
    sweep: Sweep, searched: Iterable[Trial], find: Callable[[Trial], TrialRecord | None]
) -> dict[str, list[Point]]:
    """Returns arm -> the points that its search tried, without those that failed, which might fail again."""
    points: dict[str, list[Point]] = {arm: [] for arm in sweep.arms}
    for trial in searched:
        if trial.arm in points and find(trial) and trial.point not in points[trial.arm]:
            points[trial.arm].append(trial.point)
    return points


def drift_trials(sweep: Sweep, reported: Iterable[Trial], points: Mapping[str, Sequence[Point]]) -> list[Trial]:
    """Returns a trial for each arm's best point and each generation, start, policy and order.

    Args:
        sweep: the sweep.
        reported: the trials of the report split; those of the reference arms have no defense to apply again.
        points: arm -> the points that its search tried, among which policies that search again choose.
    """
    if sweep.drift is None:
        return []
    return [
        replace(trial, split=DRIFT, generation=one)
        for trial in reported
        if trial.split == "report" and trial.arm in sweep.arms
        for one in _generations(sweep, tuple(points[trial.arm]))
    ]


def _generations(sweep: Sweep, points: tuple[Point, ...]) -> list[Generation]:
    assert sweep.drift, "the caller has checked the section"
    whole = [
        Generation(data, order, start, policy)
        for start in sweep.drift.starts
        for policy in sweep.drift.policies
        for order, data in enumerate(sweep.drift.permutations())
    ]
    upto = [replace(one, data=one.data[:last]) for one in whole for last in range(1, one.number + 1)]
    return [replace(one, points=points) if one.how.searches else one for one in upto]


def before(trial: Trial) -> Trial:
    """Returns the trial whose adapter a later generation starts from: the generation before, or generation 0."""
    assert trial.generation, "only trials of later generations have one before"
    previous = trial.generation.previous
    return replace(trial, split=DRIFT if previous else "report", generation=previous)


class GenerationQueue(TrialQueue):
    """Provides each generation once the one before it has ended."""

    def next(self) -> Trial | None:
        """Returns the next trial whose generation before has ended; None if each has to wait for another."""
        unfinished = {trial.id for trial in self._ready} | self._running
        for trial in self._ready:
            if before(trial).id not in unfinished:
                self._ready.remove(trial)
                self._running.add(trial.id)
                return trial
        return None
