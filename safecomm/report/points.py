"""The points of a sweep: its trials, pooled over seeds.

A run is read as plain tables here, so that it outlives the datasets and settings that later versions know.
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
"""An arm's name, its searched parameters and whatever is known about the point."""
BESIDE_ORIGINAL = ("refused_more", "refused_less")
"""A trial's columns of the harmless prompts that it refuses more often, or less often, than the original."""


def read_trials(run: Path) -> pd.DataFrame:
    """Reads `trials.parquet`, a row per trial and split, with the searched parameters in one way of writing.

    Raises:
        UsageError: if the run has no trials yet.
    """
    path = run / TRIALS
    if not path.is_file():
        raise UsageError(f"{run}: {TRIALS} is missing, so no trial has finished; start the sweep with safecomm run")
    trials = pd.read_parquet(path)
    return trials.assign(point=[json.dumps(json.loads(point), sort_keys=True) for point in trials["point"]])


def metrics_of(frame: pd.DataFrame) -> list[str]:
    """Returns the metrics that a frame has columns for, means before their benchmarks."""
    names = [name.removesuffix("_n") for name in frame.columns if name.endswith("_n")]
    return sorted((name for name in names if f"{name}_low" in frame.columns), key=lambda name: "/" in name)


def rate_in(row: Mapping[str, Any], metric: str) -> Rate:
    """Returns a row's rate; NaN where it was not measured."""
    if metric not in row or f"{metric}_n" not in row or pd.isna(row[f"{metric}_n"]):
        return Rate(math.nan, 0.0, 1.0, 0, 0.0)
    low, high, unscored = (float(row[f"{metric}_{part}"]) for part in ("low", "high", "unscored"))
    return Rate(float(row[metric]), low, high, int(row[f"{metric}_n"]), unscored)


def pooled(trials: pd.DataFrame) -> pd.DataFrame:
    """Pools the seeds of every point.

    A benchmark's counts are summed over the seeds and get a Wilson interval; the means over benchmarks are formed
    anew from them. Seeds that share an evaluation, as the original model's do, count once. All seeds answer the same
    prompts, so the interval speaks of prompts only: how much a fine-tune varies shows in M_min and M_max.

    A point that racing stopped early is left out, as its rates are those of a few prompts; but where all points of an
    arm stopped, those that got furthest stand for it.

    Returns:
        A row per (arm, point, split), in the order of the trials: `status` (`done` or `stopped`), `seeds` (how many),
        `first_trial`, and per metric M the columns M, M_low, M_high, M_n, M_unscored and M_min, M_max (the lowest and
        highest seed); and the sums of `BESIDE_ORIGINAL`.
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
    """Returns which trials are done or, in arms without any on that split, were stopped last."""
    done = trials["status"] == "done"
    stopped = trials["status"] == "stopped"
    if not stopped.any():
        return done
    places = [trials["arm"], trials["split"]]
    share = trials["share"].where(stopped)
    last = share == share.groupby(places).transform("max")
    return done | (last & ~done.groupby(places).transform("any"))


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
    """Returns the counts beside the original's; unknown where one seed's are."""
    return {name: float(seeds[name].sum(min_count=len(seeds))) for name in BESIDE_ORIGINAL if name in seeds}


def _pool_counts(seeds: pd.DataFrame, metric: str) -> Rate:
    """Sums one benchmark's counts; unscored shares average out, as every seed has the same number of prompts."""
    if len(seeds) == 1:  # as it was measured: several answers to a prompt show in its interval and not in its counts
        return rate_in(rows_of(seeds)[0], metric)
    scored = seeds[f"{metric}_n"].fillna(0)
    hits = round(float((seeds[metric].fillna(0) * scored).sum()))
    return replace(rate(hits, int(scored.sum()), int(scored.sum())), unscored=float(seeds[f"{metric}_unscored"].mean()))


def rows_of(points: pd.DataFrame) -> list[Point]:
    """Returns a frame's rows as dictionaries."""
    return cast(list[Point], points.to_dict("records"))
