"""Helpers for objects that exist only in the sweep's driver."""

from typing import Any

LOST = "its process, or one that it depends on, died repeatedly"
"""Error of a trial that failed on every retry because processes died."""


class DriverOnly:
    """Pickles to an empty state.

    Ray Tune pickles its searcher and callbacks so that it can restore them. We don't need that: trial records and
    Optuna's journal hold the state. Consoles, locks and W&B runs can't be pickled anyway.
    """

    def __getstate__(self) -> dict[str, Any]:
        """Returns an empty state."""
        return {}
