"""What lives in the sweep's driver alone."""

from typing import Any

LOST = "its process died, or others that it needed, time after time"
"""What is said of a trial that could not be carried out, since what runs it went away again and again."""


class DriverOnly:
    """Leaves everything out of the pickle that Ray Tune makes of its searcher and callbacks when an experiment starts.

    It is meant for a restore, which the trials' records and Optuna's journal make needless; and consoles, locks and W&B
    runs can't be pickled.
    """

    def __getstate__(self) -> dict[str, Any]:
        """Returns nothing."""
        return {}
