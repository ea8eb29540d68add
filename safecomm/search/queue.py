"""A queue of trials, which provides each experiment with the next trial to run."""

from collections import deque
from collections.abc import Iterable

from safecomm.search.arms import Trial
from safecomm.search.record import TrialRecord


class TrialQueue:
    """Provides trials in order, each once."""

    def __init__(self, trials: Iterable[Trial] = ()):
        """Initializes the queue with unfinished trials."""
        self.trials = list(trials)
        """All trials in order: queued, running and finished."""
        self._ready = deque(self.trials)
        self._running: set[str] = set()

    @property
    def is_done(self) -> bool:
        """Whether every trial has ended."""
        return not self._ready and not self._running

    def next(self) -> Trial | None:
        """Returns the next trial; None if there is none, or if further trials depend on those that are running."""
        if not self._ready:
            return None
        trial = self._ready.popleft()
        self._running.add(trial.id)
        return trial

    def finish(self, trial: Trial, record: TrialRecord) -> None:
        """Records that a trial has ended, and its result."""
        self._running.discard(trial.id)
