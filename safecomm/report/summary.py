"""The summary in a run folder: the Pareto front, the recommended point and every arm's best point.

All choices use the search split; the report split only measures the chosen points.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from safecomm.report.choice import Limits, best_of_arms, recommend
from safecomm.report.pareto import hypervolume, pareto_front
from safecomm.report.points import pooled, rate_in, rows_of
from safecomm.report.run_files import read_saved_sweep, read_trials
from safecomm.spec import ORIGINAL
from safecomm.statistics.metric_table import BY_NAME
from safecomm.storage.names import PARETO
from safecomm.storage.store import Store, without_nan, write_json


def summarise(points: pd.DataFrame, search: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the contents of `pareto.json`.

    Args:
        points: the output of `pooled`.
        search: the `search` section of the resolved sweep.

    Returns:
        `objectives` (name -> min or max), `target_asr`, `front` (points with their rates on the search split),
        `hypervolume`, `recommended` (see `recommend`) and `best` (arm -> point).
    """
    on_search = points[points["split"] == "search"]
    original = on_search[on_search["arm"] == ORIGINAL]
    limits = Limits.of(search)
    reference = rows_of(original)[0] if len(original) else None
    front = pareto_front(points, search["objectives"])
    return {
        "objectives": {name: BY_NAME[name].direction for name in search["objectives"]},
        "target_asr": search["target_asr"],
        "front": [
            {"arm": row["arm"], "point": row["point"]}
            | {name: asdict(rate_in(row, name)) for name in search["objectives"]}
            for row in rows_of(front)
        ],
        "hypervolume": hypervolume(points, search["objectives"]),
        "recommended": recommend(on_search, limits, reference),
        "best": best_of_arms(on_search, limits, reference),
    }


def write_pareto(run: Path) -> Path:
    """Writes a run's `pareto.json` from its `sweep.json` and `trials.parquet`; unknown rates are null."""
    found = summarise(pooled(read_trials(run), Store(run.parent / "store")), read_saved_sweep(run)["search"])
    for entry in [*found["front"], *filter(None, [found["recommended"]])]:
        entry["point"] = json.loads(entry["point"])
    found["best"] = {arm: json.loads(point) for arm, point in found["best"].items()}
    path = run / PARETO
    write_json(path, without_nan(found))
    return path
