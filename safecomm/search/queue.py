"""A queue of trials: what every experiment hands out, and the queue adds to."""

from collections import deque
from collections.abc import Iterable

from safecomm.search.arms import Trial
from safecomm.search.record import TrialRecord


class TrialQueue:
    """Hands out trials in their order, each once."""

    def __init__(self, trials: Iterable[Trial] = ()):
        """Takes those that are not over yet."""
        self.trials = list(trials)
        """Every trial handed out or found to be over, in their order."""
        self._ready = deque(self.trials)
        self._running: set[str] = set()

    @property
    def is_done(self) -> bool:
        """Whether every trial is over."""
        return not self._ready and not self._running

    def next(self) -> Trial | None:
        """Returns the next trial; None where none is left, or the rest waits for those that are running."""
        if not self._ready:
            return None
        trial = self._ready.popleft()
        self._running.add(trial.id)
        return trial

    def finish(self, trial: Trial, record: TrialRecord) -> None:
        """Takes in that a trial is over, and what it gave."""
        self._running.discard(trial.id)
