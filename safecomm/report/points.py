"""The points of a sweep: its trials, pooled over seeds.

Runs are read as plain tables, so that they stay readable when later versions change datasets or settings.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pandas as pd

from safecomm.judging.coherence import with_coherence
from safecomm.judging.verdicts import read_rows
from safecomm.search.arms import DRIFT, RELEASE, TAMPER
from safecomm.statistics.metric_table import INCOHERENCE, MOST_INCOHERENT
from safecomm.statistics.metrics import Rate, across_runs, as_columns, mean_rate, one_seeds_interval, rates
from safecomm.storage.store import Store

Point = dict[str, Any]
"""An arm's name, its searched parameters and whatever is known about the point."""
REFUSAL_RISE = ("refusal_rise", "refusal_rise_low", "refusal_rise_high")
"""A trial's columns of its over-refusal minus the original's, with the 95% interval (see `beside_original`)."""


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


def is_incoherent(row: Mapping[str, Any]) -> bool:
    """Returns whether so many answers of a point are incoherent that its other rates mean little."""
    return rate_in(row, INCOHERENCE.name).value > MOST_INCOHERENT


def pooled(trials: pd.DataFrame, store: Store | None) -> pd.DataFrame:
    """Pools the seeds of every point.

    All seeds answer the same prompts, so their answers to one prompt are correlated: the rates come from the answers of
    all seeds, with the prompt (or its cluster) as the unit. Their interval holds for the mean of these very fine-tunes.
    M_runs_low and M_runs_high bound the mean over further fine-tunes too: they add the variation between the seeds
    (Student's t; unknown for one seed). Seeds that share an evaluation, as the original model's do, count once. If the
    answers are gone, the interval is that of a single seed's prompts.

    The split that is kept for the gate is left out. A point of which a seed stopped early is left out, because its
    rates are those of a few prompts. If all points of an arm stopped, those that were measured on most prompts
    represent it.

    Args:
        trials: what `read_trials` returns.
        store: holds the trials' answers; None if they are gone.

    Returns:
        A row per (arm, point, split), in the order of the trials: `status` (`done` or `stopped`), `seeds` (how many),
        `first_trial`, and per metric M the columns M, M_low, M_high, M_n, M_unscored, M_min, M_max (the lowest and
        highest seed), M_runs_low and M_runs_high; and the seeds' mean of `REFUSAL_RISE`.
    """
    trials = trials[~trials["split"].isin([RELEASE, TAMPER, DRIFT])]
    shown = trials[_furthest(trials)].drop_duplicates(["arm", "point", "split", "evaluation"])
    groups = shown.groupby(["arm", "point", "split"], sort=False)
    rows = [
        dict(zip(("arm", "point", "split"), cast(tuple[str, ...], key), strict=True)) | _pool(seeds, store)
        for key, seeds in groups
    ]
    return (
        pd.DataFrame(rows)
        if rows
        else pd.DataFrame(columns=["arm", "point", "split", "status", "seeds", "first_trial"])
    )


def _furthest(trials: pd.DataFrame) -> "pd.Series[bool]":
    """Returns the trials of the points that are done or, in arms without any on that split, were stopped last."""
    done = trials["status"] == "done"
    stopped = trials["status"] == "stopped"
    if not stopped.any():
        return done
    done &= ~stopped.groupby([trials["arm"], trials["point"], trials["split"]]).transform("any")
    places = [trials["arm"], trials["split"]]
    share = trials["share"].where(stopped)
    last = share == share.groupby(places).transform("max")
    return done | (last & ~done.groupby(places).transform("any"))


def _pool(seeds: pd.DataFrame, store: Store | None) -> Point:
    metrics = metrics_of(seeds)
    found = _rates(seeds, metrics, store)
    spread = {f"{name}_{end}": float(getattr(seeds[name], end)()) for name in metrics for end in ("min", "max")}
    rows = rows_of(seeds)
    for name in found if len(seeds) > 1 else ():
        spread[f"{name}_runs_low"], spread[f"{name}_runs_high"] = across_runs(
            found[name], [rate_in(row, name) for row in rows]
        )
    status = "done" if (seeds["status"] == "done").all() else "stopped"
    whole = {"status": status, "seeds": len(seeds), "first_trial": seeds["trial"].iloc[0]}
    return {**whole, **as_columns(found), **spread, **_rise(seeds)}


def _rates(seeds: pd.DataFrame, metrics: Sequence[str], store: Store | None) -> dict[str, Rate]:
    """Returns the rates over all seeds of a point."""
    answers = [_answers(store, str(key)) for key in seeds["evaluation"]] if len(seeds) > 1 else [None]
    if all(one is not None for one in answers):
        judges = ["", *dict.fromkeys(name.partition("/")[0].partition("@")[2] for name in metrics if "@" in name)]
        found = rates(pd.concat([one for one in answers if one is not None], ignore_index=True), judges)
        return {name: found[name] for name in metrics if name in found}
    rows = rows_of(seeds)
    measured = {name: [rate_in(row, name) for row in rows] for name in metrics}
    parts = {name: ones[0] if len(ones) == 1 else one_seeds_interval(ones) for name, ones in measured.items()}
    means = [name for name in metrics if "/" not in name]
    by_mean = {mean: [one for name, one in parts.items() if name.startswith(f"{mean}/")] for mean in means}
    return parts | {mean: mean_rate(of_mean) for mean, of_mean in by_mean.items() if of_mean}


def _answers(store: Store | None, evaluation: str) -> pd.DataFrame | None:
    folder = store.find("evaluation", evaluation) if store and evaluation else None
    return None if folder is None else with_coherence(read_rows(folder))


def _rise(seeds: pd.DataFrame) -> dict[str, float]:
    """Returns the rise in over-refusal: the seeds' mean, as if they gave the same answers; unknown if one seed's is."""
    return {name: float(seeds[name].mean(skipna=False)) for name in REFUSAL_RISE if name in seeds}


def rows_of(points: pd.DataFrame) -> list[Point]:
    """Returns a frame's rows as dictionaries: what `to_dict("records")` does, which is slow for many columns."""
    names = [str(name) for name in points]
    return [dict(zip(names, values, strict=True)) for values in points.to_numpy(object).tolist()]
