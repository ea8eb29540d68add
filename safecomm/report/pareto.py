"""The Pareto front of a search and its hypervolume."""

from collections.abc import Sequence
from itertools import pairwise

import pandas as pd

from safecomm.report.points import Point, is_incoherent, rows_of
from safecomm.spec import ORIGINAL, REFERENCE_ARMS
from safecomm.statistics.metric_table import BY_NAME


def pareto_front(pooled: pd.DataFrame, objectives: Sequence[str]) -> pd.DataFrame:
    """Returns the coherent points of the search split that no other one dominates, sorted by the objectives.

    A point is dominated if another is at least as good in every objective and better in one. `original` is not a
    candidate, because it has not learnt the task. Objectives that the sweep did not measure and points with missing
    values are ignored.
    """
    candidates = pooled[(pooled["split"] == "search") & (pooled["arm"] != ORIGINAL) & (pooled["status"] == "done")]
    candidates = candidates[[not is_incoherent(row) for row in rows_of(candidates)]]
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


def hypervolume(points: pd.DataFrame, objectives: Sequence[str], arms: Sequence[str] = ()) -> float | None:
    """Returns the normalized hypervolume of the search split's Pareto front, or of the front of some arms' points.

    The hypervolume indicator (Zitzler and Thiele, IEEE Trans. Evol. Comput. 3, 1999) between the worse of the two
    reference arms in each objective and the ideal (no attack succeeds, every answer is right, nothing harmless is
    refused). It is a share of that volume: 0 if every point is as bad as the worse reference in some objective, 1 at
    the ideal. An objective in which both references are already ideal is ignored.

    Args:
        points: the output of `pooled`.
        objectives: the sweep's objectives.
        arms: the arms whose points count; all by default.

    Returns:
        None if no reference arm was measured.
    """
    references = points[(points["split"] == "search") & points["arm"].isin(REFERENCE_ARMS)]
    known = [name for name in objectives if name in references and bool(references[name].notna().any())]
    worst = {name: max(loss for row in rows_of(references) if (loss := _loss(row, name)) == loss) for name in known}
    improvable = [name for name, loss in worst.items() if loss > 0]
    if not improvable:
        return None
    front = rows_of(pareto_front(points[points["arm"].isin(arms)] if arms else points, objectives))
    return _covered([[min(1.0, _loss(row, name) / worst[name]) for name in improvable] for row in front])


def _loss(row: Point, name: str) -> float:
    """Returns the distance of a rate from the ideal."""
    return float(row[name] if BY_NAME[name].direction == "min" else 1 - row[name])


def _covered(losses: list[list[float]]) -> float:
    """Returns the volume dominated by points up to the corner (1, ..., 1), sliced along the last axis."""
    if not losses or not losses[0]:
        return float(bool(losses))
    edges = [*sorted({point[-1] for point in losses}), 1.0]
    return sum(
        (end - start) * _covered([point[:-1] for point in losses if point[-1] <= start])
        for start, end in pairwise(edges)
    )
