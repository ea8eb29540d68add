"""Early stopping in one search: which trials take part, and how they query the stopping actor."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safecomm.search.arms import Trial
from safecomm.search.record import TrialRecord
from safecomm.search.search_queue import SearchQueue
from safecomm.search.stopping_actor import Candidate, Progress, StoppingActor
from safecomm.search.stopping_rule import rule_of
from safecomm.spec import REFERENCE_ARMS, Sweep
from safecomm.spec.search import Racing
from safecomm.statistics.domain import domain_of
from safecomm.storage.store import Store


class EarlyStopping:
    """The driver's side of early stopping in one search. Trials of the reference arms never stop early."""

    def __init__(self, sweep: Sweep, racing: Racing, queue: SearchQueue, points: int, store: Store):
        """Starts the actor.

        Args:
            sweep: the sweep.
            racing: its rungs and confidence.
            queue: the search.
            points: the largest number of points in the search.
            store: holds the evaluations.
        """
        import ray

        self.rungs = racing.rungs
        self._queue, self._seeds, self._store = queue, sweep.seeds, store
        level, looks, rivals, search = 1 - racing.confidence, len(racing.rungs), max(1, points), sweep.search
        limits = (search.target_asr, level, looks, rivals, domain_of(sweep.domain))
        rule = rule_of(racing.rule, *limits, search.max_over_refusal_rise)
        place: dict[str, Any] = {"max_concurrency": 1000, **_on_this_node()}
        self._actor = ray.remote(num_cpus=0)(StoppingActor).options(**place).remote(rule)
        self._reported: set[str] = set()

    @classmethod
    def of(cls, sweep: Sweep, queue: SearchQueue, most: int, store: Store) -> "EarlyStopping | None":
        """Returns the sweep's early stopping, or None if it is switched off.

        Args:
            sweep: the sweep.
            queue: the search.
            most: the largest number of trials in the search.
            store: holds the evaluations.
        """
        racing = sweep.search.racing
        if racing is None or not sweep.stops_early:
            return None
        return cls(sweep, racing, queue, math.ceil(most / sweep.seeds), store)

    def entry(self, trial: Trial) -> dict[str, Any]:
        """Reports to the actor which trials that it waits for have ended; returns what it needs to query the actor."""
        number, point = self._place(trial)
        for other in self._queue.trials[: point.trials.stop]:
            if other.id != trial.id and (record := self._queue.record(other)):
                self.over(other, record)
        rungs = [] if trial.arm in REFERENCE_ARMS else self.rungs
        return {"number": number, "point": point, "rungs": rungs, "actor": self._actor}

    def over(self, trial: Trial, record: TrialRecord) -> None:
        """Reports to the actor that a trial has ended; repeated calls have no effect."""
        if trial.id in self._reported:
            return
        self._reported.add(trial.id)
        evaluation = str(self._store.folder("evaluation", record.evaluation)) if record.evaluation else ""
        share = 1.0 if record.share is None else record.share
        self._actor.over.remote(Progress(*self._place(trial), share, evaluation))

    def _place(self, trial: Trial) -> tuple[int, Candidate]:
        """Returns a trial's position in the search, and its point, whose trials follow each other there."""
        number = self._queue.trials.index(trial)
        first = number - trial.seed
        return number, Candidate(trial.arm, self._queue.trials[first].title, range(first, first + self._seeds))


def _on_this_node() -> dict[str, Any]:
    """Returns the options that place an actor on this node, so that it is lost only if the driver is."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False)}


def asking(entry: Mapping[str, Any], report: Callable[[dict[str, Any]], None]) -> Callable[[float, Path], str]:
    """Returns the function that a trial calls after each rung; it returns why the trial has to stop, or "".

    Args:
        entry: the trial's `EarlyStopping.entry`.
        report: receives the number of finished rungs.
    """
    import ray

    rungs: Sequence[float] = entry["rungs"]

    def look(share: float, evaluation: Path) -> str:
        report({"rung": rungs.index(share) + 1, "rungs": len(rungs) + 1})
        progress = Progress(entry["number"], entry["point"], share, str(evaluation))
        try:
            reason: str = ray.get(entry["actor"].look.remote(progress))
        except ray.exceptions.RayActorError:  # the actor's node died; without the actor no trial stops early
            return ""
        return reason

    return look
