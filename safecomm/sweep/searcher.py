"""A Ray Tune searcher that follows the queue."""

from typing import Any

from ray.tune.search import Searcher

from safecomm.search.arms import Trial
from safecomm.search.early_stopping import EarlyStopping
from safecomm.search.queue import TrialQueue
from safecomm.search.record import TrialRecord
from safecomm.search.run_folder import RunFolder
from safecomm.storage import shared
from safecomm.sweep.driver import LOST, DriverOnly


class QueueSearcher(DriverOnly, Searcher):  # type: ignore[misc]
    """Passes the queue's trials to Ray Tune, and their results back to the queue."""

    def __init__(self, queue: TrialQueue, folder: RunFolder, race: EarlyStopping | None = None):
        super().__init__()
        self._queue = queue
        self._folder = folder
        self._race = race
        self._running: dict[str, Trial] = {}
        self._before: dict[str, TrialRecord | None] = {}

    @property
    def was_stopped(self) -> bool:
        """Whether the experiment ended before all trials were finished."""
        return bool(self._running) or not self._queue.is_done

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Returns the next trial's configuration, None if it must wait for others, or FINISHED if none remain."""
        trial = self._queue.next()
        if trial is None:
            finished: str = Searcher.FINISHED
            return finished if self._queue.is_done else None
        self._running[trial_id] = trial
        self._before[trial_id] = self._folder.record(trial)
        return {"trial": trial.as_config(), "race": self._race.entry(trial) if self._race else None}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Passes the record to the queue; a trial whose process died gets a `failed` record."""
        trial = self._running.pop(trial_id)
        if error or not result or "status" not in result:
            record = self._lost(trial, self._before[trial_id])
        else:
            record = TrialRecord.from_json(result)
        if self._race:
            self._race.over(trial, record)
        self._queue.finish(trial, record)

    def _lost(self, trial: Trial, before: TrialRecord | None) -> TrialRecord:
        """Returns the record with the reason that the last try left, or one without if its process died first."""
        shared.fetch(self._folder.record_path(trial))
        kept = self._folder.record(trial)
        if kept and kept.status == "failed" and kept != before:
            return kept
        return self._folder.keep(TrialRecord.of(trial, "failed", error=LOST, log=""))

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: trial records and Optuna's journal hold the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing; see `save`."""
