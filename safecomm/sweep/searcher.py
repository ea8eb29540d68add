"""The agenda as a Ray Tune searcher."""

from typing import Any

from ray.tune.search import Searcher

from safecomm.search.arms import Trial
from safecomm.search.queue import TrialQueue
from safecomm.search.race import Race
from safecomm.search.record import TrialRecord
from safecomm.search.run_folder import RunFolder
from safecomm.sweep.driver import LOST, DriverOnly


class AgendaSearcher(DriverOnly, Searcher):  # type: ignore[misc]
    """Gives Ray Tune the agenda's trials and tells the agenda what they gave."""

    def __init__(self, agenda: TrialQueue, folder: RunFolder, race: Race | None = None):
        super().__init__()
        self._agenda = agenda
        self._folder = folder
        self._race = race
        self._running: dict[str, Trial] = {}

    @property
    def was_stopped(self) -> bool:
        """Whether the experiment ended before all trials had."""
        return bool(self._running) or not self._agenda.is_done

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Returns the next trial's configuration; None until others have ended, or the word that none is left."""
        trial = self._agenda.next()
        if trial is None:
            finished: str = Searcher.FINISHED
            return finished if self._agenda.is_done else None
        self._running[trial_id] = trial
        return {"trial": trial.as_config(), "race": self._race.entry(trial) if self._race else None}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Passes the record on; a trial whose process died gets one that says so."""
        trial = self._running.pop(trial_id)
        if error or not result or "status" not in result:
            record = self._folder.keep(TrialRecord.of(trial, "failed", error=LOST, log=""))
        else:
            record = TrialRecord.from_json(result)
        if self._race:
            self._race.over(trial, record)
        self._agenda.finish(trial, record)

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the records and Optuna's journal hold all there is to know."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing, as nothing is saved."""
