"""The points of a sweep: its trials, pooled over seeds.

Runs are read as plain tables, so that they stay readable when later versions change datasets or settings.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pandas as pd

from safecomm.errors import UsageError
from safecomm.statistics.metrics import Rate, as_columns, mean_rate, rate
from safecomm.storage.names import TRIALS

Point = dict[str, Any]
"""A table row about a point, including its arm and searched parameters."""
BESIDE_ORIGINAL = ("refused_more", "refused_less")
"""Columns with the number of harmless prompts that a trial refuses more often, or less often, than the original."""


def read_trials(run: Path) -> pd.DataFrame:
    """Reads `trials.parquet`, a row per trial and split, and normalizes the JSON of the searched parameters.

    Raises:
        UsageError: if the run has no trials yet.
    """
    path = run / TRIALS
    if not path.is_file():
        raise UsageError(f"{run}: has no {TRIALS}, so no trial has finished; run the sweep with safecomm run")
    trials = pd.read_parquet(path)
    return trials.assign(point=[json.dumps(json.loads(point), sort_keys=True) for point in trials["point"]])


def metrics_of(frame: pd.DataFrame) -> list[str]:
    """Returns the metrics in a frame's columns, means before single benchmarks."""
    names = [name.removesuffix("_n") for name in frame.columns if name.endswith("_n")]
    return sorted((name for name in names if f"{name}_low" in frame.columns), key=lambda name: "/" in name)


def rate_in(row: Mapping[str, Any], metric: str) -> Rate:
    """Returns a row's rate; NaN if it was not measured."""
    if metric not in row or f"{metric}_n" not in row or pd.isna(row[f"{metric}_n"]):
        return Rate(math.nan, 0.0, 1.0, 0, 0.0)
    low, high, unscored = (float(row[f"{metric}_{part}"]) for part in ("low", "high", "unscored"))
    return Rate(float(row[metric]), low, high, int(row[f"{metric}_n"]), unscored)


def pooled(trials: pd.DataFrame) -> pd.DataFrame:
    """Pools the seeds of every point.

    Each benchmark's counts are summed over the seeds, with a Wilson interval; the means over benchmarks are recomputed
    from these. Seeds that share an evaluation, as for the original model, count once. All seeds use the same prompts,
    so the intervals only reflect the sampling of prompts; M_min and M_max show the variation between fine-tunes.

    Points that racing stopped early are left out, because their rates are from few prompts. If all points of an arm
    were stopped, those that were measured on the most prompts are kept.

    Returns:
        A row per (arm, point, split), in the order of the trials: `status` (`done` or `stopped`), `seeds` (their
        number), `first_trial`, per metric M the columns M, M_low, M_high, M_n, M_unscored and M_min, M_max (the lowest
        and highest seed), and the sums of `BESIDE_ORIGINAL`.
    """
    shown = trials[_furthest(trials)].drop_duplicates(["arm", "point", "split", "evaluation"])
    groups = shown.groupby(["arm", "point", "split"], sort=False)
    rows = [
        dict(zip(("arm", "point", "split"), cast(tuple[str, ...], key), strict=True)) | _pool(seeds)
        for key, seeds in groups
    ]
    return (
        pd.DataFrame(rows)
        if rows
        else pd.DataFrame(columns=["arm", "point", "split", "status", "seeds", "first_trial"])
    )


def _furthest(trials: pd.DataFrame) -> "pd.Series[bool]":
    """Marks the done trials and, for arms without any on a split, the stopped trials with the largest share."""
    done = trials["status"] == "done"
    stopped = trials["status"] == "stopped"
    if not stopped.any():
        return done
    arm_and_split = [trials["arm"], trials["split"]]
    share = trials["share"].where(stopped)
    last = share == share.groupby(arm_and_split).transform("max")
    return done | (last & ~done.groupby(arm_and_split).transform("any"))


def _pool(seeds: pd.DataFrame) -> Point:
    metrics = metrics_of(seeds)
    found = {name: _pool_counts(seeds, name) for name in metrics if "/" in name}
    for name in metrics:
        if name not in found:
            parts = [one for part, one in found.items() if part.startswith(f"{name}/")]
            found[name] = mean_rate(parts) if parts else _pool_counts(seeds, name)
    spread = {f"{name}_{end}": float(getattr(seeds[name], end)()) for name in metrics for end in ("min", "max")}
    status = "done" if (seeds["status"] == "done").all() else "stopped"
    whole = {"status": status, "seeds": len(seeds), "first_trial": seeds["trial"].iloc[0]}
    return {**whole, **as_columns(found), **spread, **_sums(seeds)}


def _sums(seeds: pd.DataFrame) -> dict[str, float]:
    """Returns the sums of `BESIDE_ORIGINAL` over seeds; NaN if any seed's count is."""
    return {name: float(seeds[name].sum(min_count=len(seeds))) for name in BESIDE_ORIGINAL if name in seeds}


def _pool_counts(seeds: pd.DataFrame, metric: str) -> Rate:
    """Sums one benchmark's counts; averages the unscored shares, because every seed has the same number of prompts."""
    if len(seeds) == 1:  # keep the measured interval, which accounts for several answers per prompt
        return rate_in(rows_of(seeds)[0], metric)
    scored = seeds[f"{metric}_n"].fillna(0)
    hits = round(float((seeds[metric].fillna(0) * scored).sum()))
    return replace(rate(hits, int(scored.sum()), int(scored.sum())), unscored=float(seeds[f"{metric}_unscored"].mean()))


def rows_of(points: pd.DataFrame) -> list[Point]:
    """Returns a frame's rows as dictionaries."""
    return cast(list[Point], points.to_dict("records"))
