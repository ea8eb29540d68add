"""The rates of the headline table by benchmark, by category and by judge."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from safecomm.judging.verdicts import read_rows
from safecomm.report.run import Headline, Run
from safecomm.statistics.metric_table import ASR, METRICS, Metric
from safecomm.statistics.metrics import Rate, rates

MOST_CATEGORIES = 60
"""A benchmark with more categories than this is not divided: some name every prompt."""


@dataclass(frozen=True)
class BreakdownLine:
    """A rate on a part of the prompts, by one judge."""

    metric: str
    benchmark: str
    category: str
    """Empty for all of the benchmark."""
    judge: str
    """Empty where no judge decides."""
    rates: dict[str, Rate]
    """By arm."""


def breakdown(run: Run, rows: Sequence[Headline]) -> list[BreakdownLine]:
    """Returns the lines, each benchmark before its categories; empty if the answers are gone.

    Every line is a measurement of its own: intervals of single lines say nothing about the largest of many.
    """
    try:
        answers = {row.arm: _answers(run, row) for row in rows}
    except FileNotFoundError:
        return []
    found: dict[tuple[str, str, str, str], dict[str, Rate]] = {}
    for arm, table in answers.items():
        for key, rate in _of_arm(table, run.judge_names):
            found.setdefault(key, {})[arm] = rate
    return [BreakdownLine(*key, by_arm) for key, by_arm in found.items()]


def _answers(run: Run, row: Headline) -> pd.DataFrame:
    """Returns the judged answers of all seeds of a headline row on the report split; an evaluation counts once."""
    keys = dict.fromkeys(run.trials_of(row.arm, row.point, "report")["evaluation"])
    return pd.concat([read_rows(run.stage("evaluation", str(key))) for key in keys], ignore_index=True)


def _of_arm(table: pd.DataFrame, judges: Sequence[str]) -> Iterator[tuple[tuple[str, str, str, str], Rate]]:
    for metric in METRICS:
        for benchmark, rows in table[table["kind"] == metric.kind].groupby("benchmark"):
            for category, part in _parts(rows):
                for judge, rate in _by_judge(part, metric, judges):
                    yield (metric.name, str(benchmark), category, judge), rate


def _parts(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yields a benchmark's answers, and then those of each category."""
    yield "", rows
    named = rows[rows["category"].fillna("") != ""] if "category" in rows else rows[:0]
    if len(named) and 1 < named["category"].nunique() <= MOST_CATEGORIES:
        for category, part in named.groupby("category"):
            yield str(category), part


def _by_judge(rows: pd.DataFrame, metric: Metric, judges: Sequence[str]) -> Iterator[tuple[str, Rate]]:
    asked = [judge for judge in judges[1:] if f"verdict@{judge}" in rows] if metric is ASR else []
    found = rates(rows, [*judges[:1], *asked])
    yield judges[0] if metric is ASR else "", found[metric.name]
    for judge in asked:
        yield judge, found[f"{metric.name}@{judge}"]
