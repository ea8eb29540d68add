"""What a finished sweep found: points pooled over seeds, the Pareto front, the recommended point, every arm's best.

Choices are made on the search split alone; the report split is for publishing their rates. `write_pareto` keeps the
outcome in the run folder. A sweep is read as plain JSON here, so that a run outlives the datasets and settings that
later versions know.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import pandas as pd

from safecomm.errors import UsageError
from safecomm.evaluate.metrics import BETTER, Rate, as_columns, mean_rate, rate
from safecomm.spec import REFERENCE_ARMS
from safecomm.store import write_json

ORIGINAL, UNDEFENDED = REFERENCE_ARMS
Point = dict[str, Any]
"""An arm's name, its searched parameters and whatever is known about the point."""


def read_json(run: Path, name: str) -> Any:
    """Reads one of a run folder's JSON files.

    Raises:
        UsageError: where the file is missing or broken.
    """
    try:
        return json.loads((run / name).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{run}: {name} can't be read; give the folder of a run, <storage>/<name>") from error
    except json.JSONDecodeError as error:
        raise UsageError(f"{run}: {name} is not valid JSON; run the sweep again to write it anew") from error


def read_trials(run: Path) -> pd.DataFrame:
    """Reads `trials.parquet`, a row per trial and split, with the searched parameters in one way of writing.

    Raises:
        UsageError: where the run has no trials yet.
    """
    path = run / "trials.parquet"
    if not path.is_file():
        raise UsageError(
            f"{run}: trials.parquet is missing, so no trial has finished; start the sweep with safecomm run"
        )
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
        highest seed).
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
    return {"status": status, "seeds": len(seeds), "first_trial": seeds["trial"].iloc[0], **as_columns(found), **spread}


def _pool_counts(seeds: pd.DataFrame, metric: str) -> Rate:
    """Sums one benchmark's counts; unscored shares average out, as every seed has the same number of prompts."""
    if len(seeds) == 1:  # as it was measured: several answers to a prompt show in its interval and not in its counts
        return rate_in(rows_of(seeds)[0], metric)
    scored = seeds[f"{metric}_n"].fillna(0)
    hits = round(float((seeds[metric].fillna(0) * scored).sum()))
    return replace(rate(hits, int(scored.sum()), int(scored.sum())), unscored=float(seeds[f"{metric}_unscored"].mean()))


def pareto_front(pooled: pd.DataFrame, objectives: Sequence[str]) -> pd.DataFrame:
    """Returns the points of the search split that no other point dominates, sorted by the objectives.

    A point is dominated where another is at least as good in every objective and better in one. `original` is the
    yardstick and not a candidate: it has learnt no telecom. Objectives that the sweep did not measure, and points
    without a value, stay out.
    """
    candidates = pooled[(pooled["split"] == "search") & (pooled["arm"] != ORIGINAL) & (pooled["status"] == "done")]
    known = [name for name in objectives if name in candidates and bool(candidates[name].notna().any())]
    if not known:
        return candidates.iloc[:0]
    candidates = candidates.dropna(subset=known)
    signs = [1 if BETTER[name] == "min" else -1 for name in known]
    losses = [[sign * row[name] for sign, name in zip(signs, known, strict=True)] for row in rows_of(candidates)]
    undominated = [not any(_dominates(other, own) for other in losses) for own in losses]
    return candidates[undominated].sort_values(known)


def _dominates(one: list[float], other: list[float]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def recommend(pooled_search: pd.DataFrame, target_asr: float, original: Mapping[str, Any] | None) -> Point | None:
    """Returns the point that a team should take, with the reason.

    The highest accuracy (then the lowest attack success) among the points whose attack success is below the target
    with its whole interval and whose over-refusal is not significantly above the original's, i.e. the two intervals
    meet. Where there is none, the lowest attack success.

    Args:
        pooled_search: `pooled` rows of the search split.
        target_asr: the attack success rate to stay below, a fraction.
        original: the original model's row of the same split, if it was measured.

    Returns:
        `arm`, `point`, `meets_target` and `reason`; None without any measured point.
    """
    eligible = (pooled_search["arm"] != ORIGINAL) & (pooled_search["status"] == "done")
    candidates = _measured(pooled_search[eligible])
    if candidates.empty:
        return None
    safe = candidates[candidates["asr_high"] <= target_asr]
    fitting = safe[[_refuses_no_more(row, original) for row in rows_of(safe)]]
    within = f"at or below {target_asr:.1%} with its whole 95% interval"
    if len(fitting):
        reason = f"highest accuracy among the points that keep attack success {within}"
        reason += " and do not refuse significantly more than the original model"
    elif len(safe):
        reason = f"lowest attack success; the points that keep it {within} refuse significantly more than the original"
    else:
        reason = f"lowest attack success; no point keeps it {within}"
    chosen = _most_accurate(fitting) if len(fitting) else _safest(candidates)
    return {"arm": chosen["arm"], "point": chosen["point"], "meets_target": bool(len(fitting)), "reason": reason}


def _refuses_no_more(row: Mapping[str, Any], original: Mapping[str, Any] | None) -> bool:
    here, there = rate_in(row, "over_refusal"), rate_in(original or {}, "over_refusal")
    return here.low <= there.high


def _measured(points: pd.DataFrame) -> pd.DataFrame:
    return points.dropna(subset=["asr", "accuracy"]) if {"asr", "accuracy"} <= set(points) else points.iloc[:0]


def rows_of(points: pd.DataFrame) -> list[Point]:
    """Returns a frame's rows as dictionaries."""
    return cast(list[Point], points.to_dict("records"))


def _most_accurate(points: pd.DataFrame) -> Point:
    return rows_of(points.sort_values(["accuracy", "asr"], ascending=[False, True], kind="stable"))[0]


def _safest(points: pd.DataFrame) -> Point:
    return rows_of(points.sort_values(["asr", "accuracy"], ascending=[True, False], kind="stable"))[0]


def best_of_arms(pooled_search: pd.DataFrame, target_asr: float) -> dict[str, str]:
    """Returns every arm's best point, as `pooled` writes it.

    The highest accuracy (then the lowest attack success) among the arm's points that at least halve the undefended
    model's attack success, or bring it to the target where that is the lesser demand. An arm without such a point is
    shown at its lowest attack success. So an arm is judged by what it saves of the telecom skill once it defends at
    all.
    """
    points = _measured(pooled_search)
    undefended = [row["asr"] for row in rows_of(points) if row["arm"] == UNDEFENDED]
    limit = max([target_asr, *(asr / 2 for asr in undefended)])
    best = {}
    for arm in points["arm"].unique():
        own = points[points["arm"] == arm]
        defending = own[own["asr"] <= limit]
        best[str(arm)] = str((_most_accurate(defending) if len(defending) else _safest(own))["point"])
    return best


def summarise(points: pd.DataFrame, search: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what `pareto.json` holds.

    Args:
        points: what `pooled` returns.
        search: the `search` section of the resolved sweep.

    Returns:
        `objectives` (name -> min or max), `target_asr`, `front` (points with their rates on the search split),
        `recommended` (see `recommend`) and `best` (arm -> point).
    """
    on_search = points[points["split"] == "search"]
    original = on_search[on_search["arm"] == ORIGINAL]
    front = pareto_front(points, search["objectives"])
    return {
        "objectives": {name: BETTER[name] for name in search["objectives"]},
        "target_asr": search["target_asr"],
        "front": [
            {"arm": row["arm"], "point": row["point"]}
            | {name: asdict(rate_in(row, name)) for name in search["objectives"]}
            for row in rows_of(front)
        ],
        "recommended": recommend(on_search, search["target_asr"], rows_of(original)[0] if len(original) else None),
        "best": best_of_arms(on_search, search["target_asr"]),
    }


def write_pareto(run: Path) -> Path:
    """Writes a run's `pareto.json` from its `sweep.json` and `trials.parquet`; unknown rates are null."""
    found = summarise(pooled(read_trials(run)), read_json(run, "sweep.json")["search"])
    for place in [*found["front"], *filter(None, [found["recommended"]])]:
        place["point"] = json.loads(place["point"])
    found["best"] = {arm: json.loads(point) for arm, point in found["best"].items()}
    path = run / "pareto.json"
    write_json(path, without_nan(found))
    return path


def without_nan(value: Any) -> Any:
    """Returns a JSON-able value with null for NaN, which JSON lacks."""
    if isinstance(value, dict):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
