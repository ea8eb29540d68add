"""Warns where so many answers are incoherent that the other rates mean little."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from safecomm.report.points import rate_in
from safecomm.report.run import Headline, rate_in_words
from safecomm.statistics.metric_table import INCOHERENCE, MOST_INCOHERENT
from safecomm.statistics.metrics import Rate


def incoherence_of(row: Mapping[str, Any]) -> Rate:
    """Returns the incoherence of a trial or of a pooled row; NaN if it was not measured, as in older runs."""
    return rate_in(row, INCOHERENCE.name)


def warning(arm: str, rate: Rate) -> str:
    """Returns the warning about an arm's incoherence; empty if it is low or unknown."""
    if math.isnan(rate.value) or rate.value <= MOST_INCOHERENT:
        return ""
    return (
        f"{arm}: {rate_in_words(rate)} of the answers are incoherent, so its other rates mean little: such answers are "
        "neither safe nor helpful."
    )


def warnings(rows: Sequence[Headline]) -> list[str]:
    """Returns the warnings about the rows of the headline table."""
    return [found for row in rows if (found := warning(row.arm, incoherence_of(row.pooled)))]
