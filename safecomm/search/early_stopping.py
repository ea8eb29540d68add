"""Early stopping in one search: which trials take part, and how they query the stopping actor."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safecomm.search.arms import Trial
from safecomm.search.record import TrialRecord
from safecomm.search.search_queue import SearchQueue
from safecomm.search.stopping_actor import Progress, StoppingActor
from safecomm.search.stopping_rule import rule_of
from safecomm.spec import REFERENCE_ARMS, Sweep
from safecomm.spec.search import Racing, Search
from safecomm.statistics.domain import Domain, domain_of
from safecomm.storage.store import Store


class EarlyStopping:
    """The driver's side of early stopping in one search.

    Trials of the reference arms never stop early. With several seeds no trial does, because a point that is worse with
    one seed may be better with another.
    """

    def __init__(self, search: Search, racing: Racing, queue: SearchQueue, rivals: int, store: Store, domain: Domain):
        """Starts the actor.

        Args:
            search: the limits of a recommended point.
            racing: rungs and confidence.
            queue: the search.
            rivals: the largest number of trials in the search.
            store: holds the evaluations.
            domain: provides the task's name for the reasons.
        """
        import ray

        self.rungs = racing.rungs
        self._queue, self._store = queue, store
        level, looks = 1 - racing.confidence, len(racing.rungs)
        rule = rule_of(
            racing.rule, search.target_asr, level, looks, max(1, rivals), domain, search.max_over_refusal_rise
        )
        self._actor = (
            ray.remote(num_cpus=0)(StoppingActor).options(max_concurrency=1000, **_on_this_node()).remote(rule)
        )
        self._reported: set[str] = set()

    @classmethod
    def of(cls, sweep: Sweep, queue: SearchQueue, rivals: int, store: Store) -> "EarlyStopping | None":
        """Returns the sweep's early stopping, or None if it is switched off."""
        if not sweep.search.racing or sweep.seeds > 1:
            return None
        return cls(sweep.search, sweep.search.racing, queue, rivals, store, domain_of(sweep.domain))

    def entry(self, trial: Trial) -> dict[str, Any]:
        """Reports all earlier trials that ended to the actor, and returns what a starting trial needs to query it."""
        number = self._queue.trials.index(trial)
        for earlier in self._queue.trials[:number]:
            if record := self._queue.record(earlier):
                self.over(earlier, record)
        may_stop = trial.arm not in REFERENCE_ARMS
        return {"number": number, "rungs": self.rungs if may_stop else [], "actor": self._actor}

    def over(self, trial: Trial, record: TrialRecord) -> None:
        """Reports to the actor that a trial has ended; repeated calls have no effect."""
        if trial.id in self._reported:
            return
        self._reported.add(trial.id)
        evaluation = str(self._store.folder("evaluation", record.evaluation)) if record.evaluation else ""
        share = 1.0 if record.share is None else record.share
        number = self._queue.trials.index(trial)
        self._actor.over.remote(Progress(number, trial.arm, trial.title, share, evaluation))


def _on_this_node() -> dict[str, Any]:
    """Returns the options that place an actor on this node, so that it is lost only if the driver is."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False)}


def asking(
    entry: Mapping[str, Any], trial: Trial, report: Callable[[dict[str, Any]], None]
) -> Callable[[float, Path], str]:
    """Returns the function that a trial calls after each rung; it returns why the trial has to stop, or "".

    Args:
        entry: the trial's `EarlyStopping.entry`.
        trial: the trial.
        report: receives the number of finished rungs.
    """
    import ray

    rungs: Sequence[float] = entry["rungs"]

    def look(share: float, evaluation: Path) -> str:
        report({"rung": rungs.index(share) + 1, "rungs": len(rungs) + 1})
        progress = Progress(entry["number"], trial.arm, trial.title, share, str(evaluation))
        try:
            reason: str = ray.get(entry["actor"].look.remote(progress))
        except ray.exceptions.RayActorError:  # the actor's node died; without the actor no trial stops early
            return ""
        return reason

    return look
