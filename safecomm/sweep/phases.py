"""The phases of a sweep on its cluster: the fine-tunes, the search, the report, and further training."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

from rich.console import Console

from safecomm.cluster.session import Resources
from safecomm.plan.placement import PhaseName
from safecomm.plan.plan import Plan, make_plan
from safecomm.search.arms import DRIFT, TAMPER, Trial
from safecomm.search.drift import GenerationQueue
from safecomm.search.equivalence import EquivalentPoints
from safecomm.search.fine_tunes import fine_tunes
from safecomm.search.queue import TrialQueue
from safecomm.search.run_folder import RunFolder
from safecomm.search.search_queue import SearchQueue
from safecomm.search.tampering import further_trainings
from safecomm.serving.fleet import Fleet
from safecomm.storage.names import JOURNAL
from safecomm.sweep.attacker import check_attacker
from safecomm.sweep.engines import running_fleets, wait_for_engines
from safecomm.sweep.experiment import experiment
from safecomm.sweep.judges import measure_judges
from safecomm.sweep.publish import unpublished
from safecomm.sweep.stages import Stages


@dataclass(frozen=True)
class Phases:
    """Runs the missing trials of a sweep, phase by phase."""

    stages: Stages
    plan: Plan
    resources: Resources
    folder: RunFolder
    equivalent: EquivalentPoints
    console: Console

    def run(self) -> SearchQueue:
        """Runs all phases and returns the finished search.

        In a phased sweep no engine runs while adapters are trained, so that both can use the same GPUs.
        """
        sweep = self.stages.sweep
        with ExitStack() as running:
            if not sweep.cluster.phased:  # the engines start while the fine-tunes run
                fleets = running.enter_context(self._engines())
            self._carry_out("train", self._missing(fine_tunes(sweep, self.equivalent)), "train")
            if sweep.cluster.phased:
                fleets = running.enter_context(self._engines())
            wait_for_engines(fleets, self.console.print)
            measure_judges(self.stages, self.folder.path)
            check_attacker(self.stages)
            queue = self._search()
            for split in sweep.search.reported_splits:
                self._carry_out("report", self._unpublished(queue, split), split)
            if not sweep.cluster.phased:
                self._train_further(queue)
                self._carry_out("report", self._unpublished(queue, TAMPER), TAMPER)
            generations = self._unpublished(queue, DRIFT)
            self._experiment("train", GenerationQueue(generations), len(generations), DRIFT)
        if sweep.cluster.phased and self._unpublished(queue, TAMPER):
            self._train_further(queue)
            with self._engines() as fleets:
                wait_for_engines(fleets, self.console.print)
                self._carry_out("report", self._unpublished(queue, TAMPER), TAMPER)
        return queue

    def _missing(self, trials: Iterable[Trial]) -> list[Trial]:
        """Returns the trials without a valid record."""
        return [trial for trial in trials if not self.folder.find(trial)]

    def _search(self) -> SearchQueue:
        sweep = self.stages.sweep
        queue = SearchQueue(sweep, self.folder.find, self.folder.path / JOURNAL, self.equivalent)
        # Planned again, because the profiles of the fine-tunes tell how many points are distinct.
        self._experiment("search", queue, make_plan(sweep, self.resources, self.equivalent).trials, "search")
        return queue

    def _train_further(self, queue: SearchQueue) -> None:
        trainings = further_trainings(self._unpublished(queue, TAMPER))
        self._carry_out("train", self._missing(trainings), "tamper-train")

    def _unpublished(self, queue: SearchQueue, split: str) -> list[Trial]:
        return [one for one in unpublished(self.stages.sweep, self.folder, queue.trials) if one.split == split]

    def _carry_out(self, phase: PhaseName, trials: list[Trial], name: str) -> None:
        self._experiment(phase, TrialQueue(trials), len(trials), name)

    def _experiment(self, phase: PhaseName, queue: TrialQueue, most: int, name: str) -> None:
        at_a_time = self.plan.trials_at_a_time(phase)
        experiment(name, queue, most, at_a_time, self.stages, self.folder, self.console)
        self.folder.fetch()
        self.equivalent.fetch()

    def _engines(self) -> AbstractContextManager[list[Fleet]]:
        return running_fleets(self.stages.sweep, self.stages, self.plan, self.console.print)
