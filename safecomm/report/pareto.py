"""What a search found of the trade-off: the points that none is better than, and how far they reach."""

from collections.abc import Sequence
from itertools import pairwise

import pandas as pd

from safecomm.report.points import Point, rows_of
from safecomm.spec import ORIGINAL, REFERENCE_ARMS
from safecomm.statistics.metric_table import BY_NAME


def pareto_front(pooled: pd.DataFrame, objectives: Sequence[str]) -> pd.DataFrame:
    """Returns the points of the search split that no other point dominates, sorted by the objectives.

    A point is dominated where another is at least as good in every objective and better in one. `original` is the
    yardstick and not a candidate: it has not learnt the task. Objectives that the sweep did not measure, and points
    without a value, stay out.
    """
    candidates = pooled[(pooled["split"] == "search") & (pooled["arm"] != ORIGINAL) & (pooled["status"] == "done")]
    known = [name for name in objectives if name in candidates and bool(candidates[name].notna().any())]
    if not known:
        return candidates.iloc[:0]
    candidates = candidates.dropna(subset=known)
    signs = [1 if BY_NAME[name].direction == "min" else -1 for name in known]
    losses = [[sign * row[name] for sign, name in zip(signs, known, strict=True)] for row in rows_of(candidates)]
    undominated = [not any(_dominates(other, own) for other in losses) for own in losses]
    return candidates[undominated].sort_values(known)


def _dominates(one: list[float], other: list[float]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def hypervolume(points: pd.DataFrame, objectives: Sequence[str]) -> float | None:
    """Returns how much of the room that the reference arms leave is covered by the front of the search split.

    The hypervolume indicator (Zitzler and Thiele, IEEE Trans. Evol. Comput. 3, 1999) from the worst that a reference
    arm has in each objective to the ideal (no attack succeeds, every answer right, nothing harmless refused), as a
    share: 0 where every point is as bad as that in some objective, 1 at the ideal. An objective in which both
    references are ideal already leaves no room and does not count.

    Args:
        points: what `pooled` returns.
        objectives: the sweep's.

    Returns:
        None where no reference arm was measured.
    """
    references = points[(points["split"] == "search") & points["arm"].isin(REFERENCE_ARMS)]
    known = [name for name in objectives if name in references and bool(references[name].notna().any())]
    worst = {name: max(loss for row in rows_of(references) if (loss := _loss(row, name)) == loss) for name in known}
    roomy = [name for name, loss in worst.items() if loss > 0]
    if not roomy:
        return None
    front = rows_of(pareto_front(points, objectives))
    return _covered([[min(1.0, _loss(row, name) / worst[name]) for name in roomy] for row in front])


def _loss(row: Point, name: str) -> float:
    """Returns how far a rate is from the ideal."""
    return float(row[name] if BY_NAME[name].direction == "min" else 1 - row[name])


def _covered(losses: list[list[float]]) -> float:
    """Returns the volume between points and the corner (1, ..., 1), slice by slice along the last axis."""
    if not losses or not losses[0]:
        return float(bool(losses))
    edges = [*sorted({point[-1] for point in losses}), 1.0]
    return sum(
        (end - start) * _covered([point[:-1] for point in losses if point[-1] <= start])
        for start, end in pairwise(edges)
    )
