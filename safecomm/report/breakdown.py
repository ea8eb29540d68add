"""The rates of the headline table by benchmark, by category and by judge."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from safecomm.judging.verdicts import read_rows
from safecomm.report.run import Headline, Run
from safecomm.statistics.metric_table import ASR, METRICS
from safecomm.statistics.metrics import Rate, rates

MOST_CATEGORIES = 60
"""A benchmark with more categories than this is not divided: some name every prompt."""
SEPARATOR = "\n"
Part = tuple[str, str, str, str]
"""A line's metric, benchmark, category and judge."""


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
    found: dict[Part, dict[str, Rate]] = {}
    for arm, table in answers.items():
        for part, rate in _of_arm(table, run.judge_names):
            found.setdefault(part, {})[arm] = rate
    metrics: list[str] = [metric.name for metric in METRICS]
    judges = ["", *run.judge_names]
    order = sorted(found, key=lambda part: (metrics.index(part[0]), *part[1:3], judges.index(part[3])))
    return [BreakdownLine(*part, found[part]) for part in order]


def _answers(run: Run, row: Headline) -> pd.DataFrame:
    """Returns the judged answers of all seeds of a headline row on the report split; an evaluation counts once."""
    keys = dict.fromkeys(run.trials_of(row.arm, row.point, "report")["evaluation"])
    return pd.concat([read_rows(run.stage("evaluation", str(key))) for key in keys], ignore_index=True)


def _of_arm(table: pd.DataFrame, judges: Sequence[str]) -> Iterator[tuple[Part, Rate]]:
    """Yields the rates of an arm's answers, by the names that `rates` gives them."""
    asked = [*judges[:1], *(judge for judge in judges[1:] if f"verdict@{judge}" in table)]
    for name, rate in (rates(table, asked) | rates(divided(table), asked)).items():
        measured, _, place = name.partition("/")
        metric, _, judge = measured.partition("@")
        benchmark, category = part_of(place)
        if benchmark:  # else the mean over benchmarks
            yield (metric, benchmark, category, judge or (judges[0] if metric == ASR.name else "")), rate


def part_of(name: str) -> tuple[str, str]:
    """Returns the benchmark and the category, if any, that a name from `divided` stands for."""
    benchmark, _, category = name.partition(SEPARATOR)
    return benchmark, category


def divided(table: pd.DataFrame) -> pd.DataFrame:
    """Returns the answers of benchmarks with several categories, each as if it were a benchmark."""
    if "category" not in table:
        return table[:0]
    named = table[table["category"].fillna("") != ""]
    counts = named.groupby("benchmark")["category"].transform("nunique")
    parts = named[(counts > 1) & (counts <= MOST_CATEGORIES)]
    return parts.assign(benchmark=parts["benchmark"] + SEPARATOR + parts["category"])
