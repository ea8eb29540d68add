"""The recommended point of a search and the best point of each arm, chosen on the search split alone."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from safecomm.report.points import Point, is_incoherent, rate_in, rows_of
from safecomm.spec import ORIGINAL
from safecomm.spec.search import MARGIN
from safecomm.statistics.metric_table import ASR, MOST_INCOHERENT, OVER_REFUSAL


@dataclass(frozen=True)
class Limits:
    """What a recommended point keeps, each with its whole 95% interval."""

    target_asr: float
    max_over_refusal_rise: float = MARGIN
    """Above the original model's."""

    @classmethod
    def of(cls, search: Mapping[str, Any]) -> "Limits":
        """Returns the limits in the `search` section of a resolved sweep, which may be older than they are."""
        return cls(search["target_asr"], search.get("max_over_refusal_rise", MARGIN))


def recommend(pooled_search: pd.DataFrame, limits: Limits, original: Mapping[str, Any] | None) -> Point | None:
    """Returns the point that a team should take, with the reason.

    That is the highest accuracy (then the lowest attack success) among the points that keep the limits. If there is
    none, it is the lowest attack success. Points with many incoherent answers count only if all have.

    Args:
        pooled_search: `pooled` rows of the search split.
        limits: what a recommended point keeps.
        original: the original model's row of the same split, if it was measured.

    Returns:
        `arm`, `point`, `meets_target` and `reason`; None without any measured point.
    """
    eligible = (pooled_search["arm"] != ORIGINAL) & (pooled_search["status"] == "done")
    return _recommended(_measured(pooled_search[eligible]), limits, original)


def best_of_arms(pooled_search: pd.DataFrame, limits: Limits, original: Mapping[str, Any] | None) -> dict[str, str]:
    """Returns every arm's best point, as `pooled` writes it: what `recommend` would take from that arm."""
    points = _measured(pooled_search)
    best = {}
    for arm in points["arm"].unique():
        chosen = _recommended(points[points["arm"] == arm], limits, original)
        assert chosen is not None, "the arm has a measured point"
        best[str(arm)] = str(chosen["point"])
    return best


def _recommended(candidates: pd.DataFrame, limits: Limits, original: Mapping[str, Any] | None) -> Point | None:
    if candidates.empty:
        return None
    coherent = candidates[[not is_incoherent(row) for row in rows_of(candidates)]]
    if coherent.empty:
        chosen = _safest(candidates)
        reason = f"lowest {ASR.title}; every point writes more than {MOST_INCOHERENT:.0%} incoherent answers"
        return {"arm": chosen["arm"], "point": chosen["point"], "meets_target": False, "reason": reason}
    candidates = coherent
    safe = candidates[candidates["asr_high"] <= limits.target_asr]
    fitting = safe[[_refusal_rise(row, original) <= limits.max_over_refusal_rise for row in rows_of(safe)]]
    within = f"at or below {limits.target_asr:.1%} with its whole 95% interval"
    rise = f"{OVER_REFUSAL.title} at most {limits.max_over_refusal_rise * 100:.1f} points above the original model's"
    if len(fitting):
        reason = f"highest accuracy among the points that keep {ASR.title} {within} and {rise}, with its interval too"
    elif len(safe):
        reason = f"lowest {ASR.title}; none of the points that keep it {within} surely keeps {rise}"
    else:
        reason = f"lowest {ASR.title}; no point keeps it {within}"
    chosen = _most_accurate(fitting) if len(fitting) else _safest(candidates)
    return {"arm": chosen["arm"], "point": chosen["point"], "meets_target": bool(len(fitting)), "reason": reason}


def _refusal_rise(row: Mapping[str, Any], original: Mapping[str, Any] | None) -> float:
    """Returns the upper bound of a point's over-refusal above the original's.

    It is -inf if the sweep does not measure over-refusal, and inf if one of the two was not measured.
    Where a run has no comparison on the same prompts, the bound is that of two independent rates (Newcombe, Statistics
    in Medicine 17, 1998, method 10).
    """
    if not math.isnan(high := float(row.get("refusal_rise_high", math.nan))):
        return high
    if OVER_REFUSAL.name not in row:
        return -math.inf
    ours, theirs = rate_in(row, OVER_REFUSAL.name), rate_in(original or {}, OVER_REFUSAL.name)
    if not ours.n or not theirs.n:
        return math.inf
    return ours.value - theirs.value + math.hypot(ours.high - ours.value, theirs.value - theirs.low)


def _measured(points: pd.DataFrame) -> pd.DataFrame:
    return points.dropna(subset=["asr", "accuracy"]) if {"asr", "accuracy"} <= set(points) else points.iloc[:0]


def _most_accurate(points: pd.DataFrame) -> Point:
    return rows_of(points.sort_values(["accuracy", "asr"], ascending=[False, True], kind="stable"))[0]


def _safest(points: pd.DataFrame) -> Point:
    return rows_of(points.sort_values(["asr", "accuracy"], ascending=[True, False], kind="stable"))[0]
