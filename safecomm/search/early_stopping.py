"""A sweep's race: who takes part, what the referee is told, and what a trial asks it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safecomm.search.arms import Trial
from safecomm.search.record import TrialRecord
from safecomm.search.search_queue import SearchQueue
from safecomm.search.stopping_actor import StoppingActor
from safecomm.search.stopping_rule import rule_of
from safecomm.spec import REFERENCE_ARMS, Sweep
from safecomm.spec.search import Racing
from safecomm.statistics.domain import TELECOM, Domain, domain_of
from safecomm.storage.store import Store


class EarlyStopping:
    """The race among the trials of one search, as the sweep's driver runs it.

    The reference arms don't race: they are what the others are held against. With several seeds nobody does: what a
    point loses with one seed it may gain with another.
    """

    def __init__(
        self, racing: Racing, target_asr: float, queue: SearchQueue, rivals: int, store: Store, domain: Domain = TELECOM
    ):
        """Starts the referee.

        Args:
            racing: rungs and confidence.
            target_asr: what a recommended point keeps.
            queue: the search.
            rivals: the most trials that it will have.
            store: where evaluations are.
            domain: what the reasons call the task.
        """
        import ray

        self.rungs = racing.rungs
        self._queue, self._store = queue, store
        rule = rule_of(racing.rule, target_asr, 1 - racing.confidence, len(racing.rungs), max(1, rivals), domain)
        self._referee = ray.remote(num_cpus=0)(StoppingActor).options(max_concurrency=1000, **_beside_us()).remote(rule)
        self._introduced: set[str] = set()

    @classmethod
    def of(cls, sweep: Sweep, queue: SearchQueue, rivals: int, store: Store) -> "EarlyStopping | None":
        """Returns the sweep's race, if it has one."""
        if not sweep.search.racing or sweep.seeds > 1:
            return None
        domain = domain_of(sweep.domain)
        return cls(sweep.search.racing, sweep.search.target_asr, queue, rivals, store, domain)

    def entry(self, trial: Trial) -> dict[str, Any]:
        """Returns what a trial that starts needs to ask the referee, who hears of all before it that are over."""
        place = self._queue.trials.index(trial)
        for earlier in self._queue.trials[:place]:
            if record := self._queue.record(earlier):
                self.over(earlier, record)
        races = trial.arm not in REFERENCE_ARMS
        return {"place": place, "rungs": self.rungs if races else [], "referee": self._referee}

    def over(self, trial: Trial, record: TrialRecord) -> None:
        """Tells the referee of a trial that is over, once."""
        if trial.id in self._introduced:
            return
        self._introduced.add(trial.id)
        key = record.evaluation if trial.arm != REFERENCE_ARMS[0] else ""
        evaluation = str(self._store.folder("evaluation", key)) if key else ""
        place = self._queue.trials.index(trial)
        self._referee.over.remote(place, trial.title, 1.0 if record.share is None else record.share, evaluation)


def _beside_us() -> dict[str, Any]:
    """Returns the options of an actor on this node: it is lost with the driver, not with any other node."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False)}


def asking(
    entry: Mapping[str, Any], trial: Trial, report: Callable[[dict[str, Any]], None]
) -> Callable[[float, Path], str]:
    """Returns what a trial calls after a rung: the referee's word on whether to stop.

    Args:
        entry: the trial's.
        trial: the trial.
        report: gets how many rungs are done.
    """
    import ray

    rungs: Sequence[float] = entry["rungs"]

    def look(share: float, evaluation: Path) -> str:
        report({"rung": rungs.index(share) + 1, "rungs": len(rungs) + 1})
        try:
            reason: str = ray.get(entry["referee"].look.remote(entry["place"], trial.title, share, str(evaluation)))
        except ray.exceptions.RayActorError:  # the referee's node died: without a referee nobody stops
            return ""
        return reason

    return look
