"""Warns where a further judge finds far more harmful answers unsafe than the deciding judge does."""

from collections.abc import Mapping, Sequence
from typing import Any

from safecomm.report.points import rate_in
from safecomm.report.run import Headline, Run, rate_in_words
from safecomm.statistics.metric_table import ASR


def disagreements(run: Run, rows: Sequence[Headline]) -> list[str]:
    """Returns the warnings about the rows of the headline table."""
    return [warning for row in rows for warning in warnings_of(row.arm, row.pooled, run.judge_names)]


def warnings_of(arm: str, row: Mapping[str, Any], judges: Sequence[str]) -> list[str]:
    """Returns a warning for each further judge whose whole interval lies above the deciding judge's.

    Either judge may be wrong. A model that garbles its answers, for example, neither refuses nor gives working
    instructions, and a judge of the harm done calls it safe.

    Args:
        arm: the arm's name.
        row: a trial or a pooled row.
        judges: the judges of harmful answers, the deciding one first.
    """
    if not judges:
        return []
    own = rate_in(row, ASR.name)
    others = {judge: rate_in(row, f"{ASR.name}@{judge}") for judge in judges[1:]}
    return [
        f"{arm}: {judges[0]}, which decides, judges {rate_in_words(own)} of the harmful answers unsafe, {judge} "
        f"{rate_in_words(rate)}. Read answers on which they disagree before you rely on either."
        for judge, rate in others.items()
        if own.n and rate.n and rate.low > own.high
    ]
