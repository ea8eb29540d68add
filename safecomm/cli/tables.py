"""Prints a comparison of models."""

import math
from collections.abc import Mapping, Sequence

from rich.table import Table

from safecomm.judging.results import Measured
from safecomm.report.run import rate_in_words
from safecomm.statistics.comparisons import JudgeAccuracy, RateDifference
from safecomm.statistics.domain import Domain
from safecomm.statistics.metric_table import ALL_METRICS, ASR, Metric
from safecomm.statistics.metrics import Rate

NO_LABEL = "it gave no verdict on a labelled response"


def comparison_tables(measured: Sequence[Measured], judges: Mapping[str, JudgeAccuracy], domain: Domain) -> list[Table]:
    """Returns the non-empty tables: one per metric, then the judges' agreement and accuracy, then corrected rates."""
    tables = [_rates_table(measured, metric, domain) for metric in ALL_METRICS]
    tables += [_agreement_table(measured), _accuracy_table(judges), _corrected_table(measured, domain)]
    return [table for table in tables if table.row_count]


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column)
    return table


def _rates_table(measured: Sequence[Measured], metric: Metric, domain: Domain) -> Table:
    columns = ("", "benchmark or judge", "rate [95% interval]", "unscored", "difference to bare model", "p")
    table = _table(metric.heading(domain), *columns)
    for one in measured:
        for name, rate in one.rates.items():
            if name.partition("/")[0].partition("@")[0] != metric.name:
                continue
            difference = one.differences.get(name)
            minus, p = (_points(difference), f"{difference.p:.3g}") if difference else ("", "")
            said = _rate(rate, one.reasons.get(name, ""))
            table.add_row(one.name, _label(name, metric.name), said, f"{rate.unscored:.1%}", minus, p)
    return table


def _agreement_table(measured: Sequence[Measured]) -> Table:
    table = _table("Agreement between judges", "", "judges", "same verdict", "Cohen's kappa [95% interval]")
    for one in measured:
        for pair, found in one.agreements.items():
            kappa = f"{found.kappa:.2f} [{found.low:.2f}, {found.high:.2f}] n={found.n}"
            table.add_row(one.name, pair, f"{found.same:.1%}", kappa)
    return table


def _accuracy_table(judges: Mapping[str, JudgeAccuracy]) -> Table:
    table = _table("Judges compared with human labels", "", "sensitivity", "specificity")
    for name, found in judges.items():
        table.add_row(name, *(_rate(rate, NO_LABEL) for rate in (found.sensitivity, found.specificity)))
    return table


def _corrected_table(measured: Sequence[Measured], domain: Domain) -> Table:
    title = f"{ASR.heading(domain)} corrected for the judge's errors"
    table = _table(title, "", "benchmark or judge", "rate [95% interval]")
    for one in measured:
        for name, rate in one.corrected.items():
            table.add_row(one.name, _label(name, ASR.name), _rate(rate, one.reasons.get(name, "")))
    return table


def _rate(rate: Rate, reason: str) -> str:
    """Returns a rate in words, or why it is unknown."""
    return f"unknown: {reason}" if reason and math.isnan(rate.value) else rate_in_words(rate)


def _label(name: str, metric: str) -> str:
    return name.removeprefix(metric).lstrip("/") or "all"


def _points(found: RateDifference) -> str:
    return f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
