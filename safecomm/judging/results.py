"""Results of a comparison of models: rates, differences, and the judges' agreement."""

import csv
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from safecomm.data.cells import as_cell
from safecomm.errors import EvaluationError, UsageError
from safecomm.judging.best_of_n import strongest
from safecomm.judging.coherence import with_coherence
from safecomm.judging.verdicts import verdict_columns
from safecomm.statistics.comparisons import (
    Agreement,
    JudgeAccuracy,
    Pairs,
    RateDifference,
    agreement,
    corrected_differences,
    corrected_rates,
)
from safecomm.statistics.metric_table import ALL_METRICS, BY_NAME, METRICS, Metric
from safecomm.statistics.metrics import Rate, clusters_of, rates
from safecomm.storage.input_files import read_json
from safecomm.storage.names import ROWS
from safecomm.storage.output_files import whole_file
from safecomm.storage.store import without_nan

RESULTS, DISAGREEMENTS = "results.json", "disagreements.csv"


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
    reasons: dict[str, str]
    """metric without any verdict -> the commonest reason for that."""


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
    tables = {name: with_coherence(strongest(table)) for name, table in rows.items()}
    compared: dict[str, dict[str, RateDifference]] = {name: {} for name in tables}
    for metric in ALL_METRICS:
        others = {name: table for name, table in tables.items() if name != reference}
        pairs = {name: paired(table, tables[reference], metric) for name, table in others.items()}
        for name, difference in corrected_differences(pairs).items():
            compared[name][metric.name] = difference

    def one(name: str, table: pd.DataFrame) -> Measured:
        measured = rates(table, judges)
        sound = corrected_rates(measured, judges, trusted)
        return Measured(name, measured, compared[name], _agreements(table, judges), sound, _reasons(table, measured))

    return [one(name, table) for name, table in tables.items()]


def _reasons(rows: pd.DataFrame, measured: Mapping[str, Rate]) -> dict[str, str]:
    found = {}
    for name in [name for name, rate in measured.items() if math.isnan(rate.value)]:
        judged, _, benchmark = name.partition("/")
        metric, at, judge = judged.partition("@")
        asked = rows["kind"] == BY_NAME[metric].kind
        if benchmark:
            asked &= rows["benchmark"] == benchmark
        found[name] = commonest_reason(rows[asked], f"verdict{at}{judge}")
    return found


def commonest_reason(answers: pd.DataFrame, column: str = "verdict") -> str:
    """Returns the commonest reason for which answers have no verdict in a column, in one line."""
    verdicts = {word for metric in ALL_METRICS for word in (metric.hit, metric.miss)}
    reasons = Counter(_reason(row) for row in answers[~answers[column].isin(verdicts)].to_dict("records"))
    return reasons.most_common(1)[0][0] if reasons else "nothing was asked"


def _reason(answer: Mapping[Any, Any]) -> str:
    error, end = answer.get("error"), answer.get("finish_reason")
    if isinstance(error, str) and error.strip():
        return " ".join(error.split())[:200]
    if end == "too_long":
        return "the prompt is too long for the model"
    if end != "compared" and not str(answer.get("response", "")).strip():
        return "the answer is empty"
    return "the judge gave no verdict on the answer"


def paired(ours: pd.DataFrame, reference: pd.DataFrame, metric: Metric) -> list[Pairs]:
    """Returns two models' verdicts on the prompts on which both have one, benchmark by benchmark.

    Args:
        ours: judged rows.
        reference: the reference model's.
        metric: decides the kind of prompts and the counted verdict.
    """
    verdicts = {metric.hit: 1.0, metric.miss: 0.0}
    shares = []
    for rows in (ours, reference):
        of_kind = rows[rows["kind"] == metric.kind]
        hits = of_kind["verdict"].map(verdicts).astype(float)
        shares.append(hits.groupby([of_kind["benchmark"], clusters_of(of_kind)]).mean())
    both = pd.concat(shares, axis=1, keys=["ours", "reference"], join="inner").dropna()
    return [Pairs(one["ours"].to_numpy(float), one["reference"].to_numpy(float)) for _, one in both.groupby(level=0)]


def _agreements(rows: pd.DataFrame, judges: Sequence[str]) -> dict[str, Agreement]:
    harmful = rows[rows["kind"] == "red_team"]
    if harmful.empty:
        return {}
    pairs = combinations(zip(judges, verdict_columns(judges), strict=True), 2)
    return {f"{a}, {b}": agreement(list(harmful[one]), list(harmful[other])) for (a, one), (b, other) in pairs}


def check_measured(rows: pd.DataFrame) -> None:
    """Checks that each model has at least one verdict.

    Args:
        rows: the judged rows of all models, with the columns `subject`, `verdict`, `finish_reason` and `error`.

    Raises:
        EvaluationError: naming the models without a verdict and the most frequent reason.
    """
    verdicts = {word for metric in METRICS for word in (metric.hit, metric.miss)}
    failed = []
    for subject, answers in rows.groupby("subject"):
        if not answers["verdict"].isin(verdicts).any():
            failed.append(
                f"{subject}: none of {len(answers):,} answers has a verdict; mostly: {commonest_reason(answers)}"
            )
    if failed:
        raise EvaluationError("\n".join(failed))


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
    found = {**settings, "judge_accuracy": accuracy, "models": [asdict(one) for one in measured]}
    text = json.dumps(without_nan(found), indent=2, ensure_ascii=False) + "\n"
    split = disagreements(rows, judges).map(as_cell)
    with whole_file(out / RESULTS) as half, whole_file(out / ROWS) as table, whole_file(out / DISAGREEMENTS) as cells:
        half.write_text(text, encoding="utf-8")
        rows.to_parquet(table)
        split.to_csv(cells, index=False, quoting=csv.QUOTE_NONNUMERIC)  # else \r would end a row


def check_no_others(out: Path, **settings: Any) -> None:
    """Checks that a folder holds no results of another evaluation, which `write_results` would replace.

    Args:
        out: the folder.
        settings: the settings of the evaluation to come.

    Raises:
        UsageError: if it does.
    """
    if not (out / RESULTS).exists():
        return
    try:
        found = read_json(out / RESULTS)
        same = all(found[name] == json.loads(json.dumps(value)) for name, value in settings.items())
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise UsageError(
            f"{out}: holds the results of another evaluation, or of another version; choose another folder or remove it"
        )
