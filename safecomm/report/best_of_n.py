"""Attack success by the number of tries (`best_of_n`) or turns (`multi_turn`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from safecomm.judging.best_of_n import TRY_OF, is_tried, is_turn, success_by_tries, success_by_turns
from safecomm.judging.verdicts import read_all_rows
from safecomm.report.plots import GRID, add_curve, percent_axis, titled_layout
from safecomm.report.run import Run, headline
from safecomm.statistics.metric_table import ASR
from safecomm.statistics.metrics import Rate

Unit = Literal["try", "turn"]


@dataclass(frozen=True)
class TryCurve:
    """Attack success on one benchmark of an arm's best point on the report split."""

    arm: str
    benchmark: str
    unit: Unit
    rates: dict[int, Rate]
    """Number of tries or turns -> attack success."""


@dataclass(frozen=True)
class TryTable:
    """Curves that are counted in the same unit."""

    unit: Unit
    curves: Sequence[TryCurve]

    @property
    def name(self) -> str:
        """The unit's plural, the name of the table's section and figure."""
        return "tries" if self.unit == "try" else "turns"

    @cached_property
    def counts(self) -> list[int]:
        """The numbers of tries or turns of all curves."""
        return sorted({count for curve in self.curves for count in curve.rates})


def try_tables(run: Run) -> list[TryTable]:
    """Returns the curves by unit."""
    curves = try_curves(run)
    tables = [TryTable(unit, [one for one in curves if one.unit == unit]) for unit in get_args(Unit)]
    return [table for table in tables if table.curves]


def try_curves(run: Run) -> list[TryCurve]:
    """Returns a curve for every arm and benchmark whose requests were tried several times."""
    if not {"best_of_n", "multi_turn"} & run.attacks:
        return []
    curves = []
    for row in headline(run):
        tries = _tries(run, row.arm, row.point)
        for benchmark, of_benchmark in tries.groupby("benchmark") if len(tries) else ():
            if is_turn(of_benchmark).any():
                curves.append(TryCurve(row.arm, str(benchmark), "turn", success_by_turns(of_benchmark)))
            else:
                curves.append(TryCurve(row.arm, str(benchmark), "try", success_by_tries(of_benchmark)))
    return curves


def tries_figure(run: Run, table: TryTable) -> go.Figure:
    """Plots attack success against the number of tries or turns, in a column per benchmark."""
    benchmarks = list(dict.fromkeys(one.benchmark for one in table.curves))
    figure = make_subplots(cols=len(benchmarks), subplot_titles=benchmarks)
    figure.update_layout(titled_layout(400))
    for one in table.curves:
        add_curve(figure, run, one.arm, one.rates, {"row": 1, "col": benchmarks.index(one.benchmark) + 1})
    scale: dict[str, Any] = {"type": "log", "tickvals": table.counts} if table.unit == "try" else {"dtick": 1}
    figure.update_xaxes(title={"text": table.name, "standoff": 6}, gridcolor=GRID, zeroline=False, **scale)
    figure.update_yaxes(percent_axis("", rangemode="tozero"))
    figure.update_yaxes(title={"text": run.titles[ASR.name]}, col=1)
    figure.update_traces(cliponaxis=False)
    return figure


def _tries(run: Run, arm: str, point: str) -> pd.DataFrame:
    """Returns the answers to all tries, over all seeds; a request counts once per seed, in one cluster."""
    found = []
    for evaluation in dict.fromkeys(run.trials_of(arm, point, "report")["evaluation"]):
        rows = read_all_rows(run.stage("evaluation", evaluation))
        tried = rows[is_tried(rows)]
        if len(tried):
            found.append(tried.assign(**{TRY_OF: f"{evaluation} " + tried[TRY_OF]}))
    return pd.concat(found) if found else pd.DataFrame()
