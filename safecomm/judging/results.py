"""Results of a comparison of models: rates, differences, and the judges' agreement."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from safecomm.judging.verdicts import verdict_columns
from safecomm.serving.stream import ID
from safecomm.statistics.comparisons import (
    Agreement,
    JudgeAccuracy,
    RateDifference,
    agreement,
    corrected_rates,
    grouped_difference,
    holm,
    paired_difference,
)
from safecomm.statistics.metric_table import METRICS, Metric
from safecomm.statistics.metrics import Rate, rates
from safecomm.storage.names import ROWS
from safecomm.storage.store import write_json


@dataclass(frozen=True)
class Measured:
    """The results of one model, with or without an adapter."""

    name: str
    rates: dict[str, Rate]
    differences: dict[str, RateDifference]
    """metric -> difference to the reference on the same prompts; p-values are Holm-corrected over all models."""
    agreements: dict[str, Agreement]
    """`JUDGE, JUDGE` -> agreement on the harmful prompts."""
    corrected: dict[str, Rate]
    """Attack success corrected for the judge's errors, for judges measured against human labels."""


def results_of(
    rows: Mapping[str, pd.DataFrame], reference: str, judges: Sequence[str], trusted: Mapping[str, JudgeAccuracy]
) -> list[Measured]:
    """Returns the results of each model.

    Args:
        rows: model -> its judged rows.
        reference: the model that the others are compared with.
        judges: the judges' names.
        trusted: judge -> agreement with human labels, if measured.
    """
    compared = {name: _differences(table, rows[reference]) for name, table in rows.items() if name != reference}
    for metric in {metric for found in compared.values() for metric in found}:
        family = {name: found[metric].p for name, found in compared.items() if metric in found}
        for name, p in holm(family).items():
            compared[name][metric] = replace(compared[name][metric], p=p)

    def one(name: str, table: pd.DataFrame) -> Measured:
        measured = rates(table, judges)
        sound = corrected_rates(measured, judges, trusted)
        return Measured(name, measured, compared.get(name, {}), _agreements(table, judges), sound)

    return [one(name, table) for name, table in rows.items()]


def _differences(ours: pd.DataFrame, reference: pd.DataFrame) -> dict[str, RateDifference]:
    both = ours.set_index(ID).join(reference.set_index(ID)["verdict"].rename("compared"))
    of_kind = {metric: both[both["kind"] == metric.kind] for metric in METRICS}
    found = {metric.name: _difference(rows, metric) for metric, rows in of_kind.items()}
    return {name: difference for name, difference in found.items() if difference}


def _difference(rows: pd.DataFrame, metric: Metric) -> RateDifference | None:
    """Compares the verdicts of answers that both models have; several answers to a prompt count as one prompt."""
    verdicts = [metric.hit, metric.miss]
    scored = rows[rows["verdict"].isin(verdicts) & rows["compared"].isin(verdicts)]
    if scored.empty:
        return None
    ours, others = scored["verdict"] == metric.hit, scored["compared"] == metric.hit
    if scored["prompt_id"].is_unique:
        return paired_difference(ours.to_numpy(), others.to_numpy())
    return grouped_difference(list((ours.astype(float) - others).groupby(scored["prompt_id"]).mean()))


def _agreements(rows: pd.DataFrame, judges: Sequence[str]) -> dict[str, Agreement]:
    harmful = rows[rows["kind"] == "red_team"]
    if harmful.empty:
        return {}
    pairs = combinations(zip(judges, verdict_columns(judges), strict=True), 2)
    return {f"{a}, {b}": agreement(list(harmful[one]), list(harmful[other])) for (a, one), (b, other) in pairs}


def disagreements(rows: pd.DataFrame, judges: Sequence[str]) -> pd.DataFrame:
    """Returns the rows of harmful prompts on which the judges disagree."""
    columns = verdict_columns(judges)
    harmful = rows[rows["kind"] == "red_team"]
    return harmful[harmful[columns].nunique(axis=1) > 1] if len(columns) > 1 and len(harmful) else harmful[:0]


def write_results(
    out: Path,
    measured: Sequence[Measured],
    rows: pd.DataFrame,
    judges: Sequence[str],
    trusted: Mapping[str, JudgeAccuracy],
    **settings: Any,
) -> None:
    """Writes the results.

    `results.json` has settings, rates, differences and agreements, `rows.parquet` the answers and verdicts, and
    `disagreements.csv` the answers on which the judges disagree.
    """
    accuracy = {name: asdict(found) for name, found in trusted.items()}
    write_json(
        out / "results.json", {**settings, "judge_accuracy": accuracy, "models": [asdict(one) for one in measured]}
    )
    rows.to_parquet(out / ROWS)
    disagreements(rows, judges).to_csv(out / "disagreements.csv", index=False)
