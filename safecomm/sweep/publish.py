"""From the trials' records to what a run folder shows: `trials.parquet`, `pareto.json`, `report.html`."""

import json

import pandas as pd

from safecomm.errors import SafecommError
from safecomm.report.page import write_report
from safecomm.spec import REFERENCE_ARMS, Sweep
from safecomm.sweep.arms import Trial, chain_at
from safecomm.sweep.results import best_of_arms, pooled, recommend, rows_of, write_pareto
from safecomm.sweep.trial import RunFolder

_NOT_FOR_THE_TABLE = {"context", "traceback"}


def trials_table(folder: RunFolder, trials: list[Trial]) -> pd.DataFrame:
    """Returns a row per trial and split that left a record."""
    records = [
        json.loads(path.read_text(encoding="utf-8"))
        for trial in trials
        if (path := folder.record_path(trial)).is_file()
    ]
    rows = [{key: value for key, value in record.items() if key not in _NOT_FOR_THE_TABLE} for record in records]
    table = pd.DataFrame(rows)
    for column in ("data", "log", "adapter", "adapter_path", "finetune", "profile", "evaluation"):
        if column in table:
            table[column] = table[column].fillna("")
    return table


def report_points(sweep: Sweep, folder: RunFolder, searched: list[Trial]) -> list[Trial]:
    """Returns the trials whose numbers are published: the references, the recommended point and every arm's best.

    They are chosen on the search split and measured on the report split.
    """
    table = trials_table(folder, searched)
    if table.empty or not (table["status"] == "done").any():
        return []
    points = pooled(table)
    best = best_of_arms(points, sweep.search.target_asr)
    originals = rows_of(points[points["arm"] == "original"])
    recommended = recommend(points, sweep.search.target_asr, originals[0] if originals else None)
    chosen = dict.fromkeys([(arm, "{}") for arm in REFERENCE_ARMS] + list(best.items()))
    if recommended:
        chosen[(recommended["arm"], recommended["point"])] = None
    return [
        Trial(arm, json.loads(point), chain_at(sweep.arms.get(arm, []), json.loads(point)), seed, "report")
        for arm, point in chosen
        for seed in range(sweep.seeds)
    ]


def publish(sweep: Sweep, folder: RunFolder, searched: list[Trial]) -> None:
    """Writes what the trials gave so far: `trials.parquet`, `pareto.json` and `report.html`.

    Raises:
        SafecommError: when no trial succeeded, with the first one's reason and log.
    """
    everything = searched + report_points(sweep, folder, searched)
    table = trials_table(folder, everything)
    half = folder.path / ".trials.parquet"
    table.to_parquet(half)
    half.replace(folder.path / "trials.parquet")
    if not (table["status"] == "done").any():
        raise SafecommError(f"every trial failed; the first: {table['error'].iloc[0]} (log: {table['log'].iloc[0]})")
    write_pareto(folder.path)
    write_report(folder.path)
