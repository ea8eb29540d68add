"""How attack success returns when the released adapters are trained further (section `tamper`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from safecomm.report.plots import GREY, GRID, bars, base_layout, percent_axis, styles
from safecomm.report.points import Point, pooled, rate_in, rows_of
from safecomm.report.run import Headline, Run, headline
from safecomm.search.arms import TAMPER
from safecomm.statistics.metric_table import ASR
from safecomm.statistics.metrics import Rate
from safecomm.storage.store import Store

TITLES = {"data": "harmless data", "harmful": "harmful examples"}
"""What an adapter is trained on, by the field of `tamper`."""


@dataclass(frozen=True)
class Breach:
    """The first measured step at which attack success exceeds the target; None if no step did."""

    at: int | None
    """By the measured rate."""
    low: int | None
    """By the upper end of the interval: no earlier step reached the target."""
    high: int | None
    """By the lower end: attack success is above the target from this step on, if it does not fall again."""
    last: int
    """The last measured step."""

    @classmethod
    def of(cls, rates: dict[int, Rate], target: float) -> "Breach":
        """Finds the steps; for several seeds, the intervals are those for further seeds."""

        def first(value: str) -> int | None:
            return next((step for step, rate in rates.items() if getattr(rate, value) > target), None)

        return cls(first("value"), first("high"), first("low"), max(rates))

    def __str__(self) -> str:
        if self.low is None:
            return f"none in {self.last} steps"
        last = f"more than {self.last}" if self.high is None else str(self.high)
        measured = f"more than {self.last}" if self.at is None else str(self.at)
        return f"{measured} [{self.low}, {last}]"


@dataclass(frozen=True)
class TamperCurve:
    """Attack success on one benchmark after further training of an arm's released adapter."""

    arm: str
    trained_on: str
    """In words."""
    benchmark: str
    rates: dict[int, Rate]
    """Step -> attack success; step 0 is the released adapter. Intervals are those for further seeds if there are
    several."""
    breach: Breach


def tamper_curves(run: Run) -> list[TamperCurve]:
    """Returns a curve for every arm, training set and benchmark; empty without a section `tamper`."""
    section: dict[str, Any] = run.sweep.get("tamper") or {}
    if not section or "tamper" not in run.trials:
        return []
    curves = []
    for trained_on in [name for name in TITLES if section.get(name)]:
        for row in headline(run):
            by_step = {0: row.pooled, **_further(run, row, trained_on)}
            for name in [key for key in row.pooled if key.startswith(f"{ASR.name}/") and f"{key}_low" in row.pooled]:
                rates = {step: _rate(point, name) for step, point in by_step.items()}
                if len(rates) > 1:
                    breach = Breach.of(rates, run.sweep["search"]["target_asr"])
                    benchmark = name.partition("/")[2]
                    curves.append(TamperCurve(row.arm, TITLES[trained_on], benchmark, rates, breach))
    return curves


def _further(run: Run, row: Headline, trained_on: str) -> dict[int, Point]:
    """Returns step -> pooled row of an arm's point."""
    trials = run.trials[run.trials["split"] == TAMPER]
    mine = trials[(trials["arm"] == row.arm) & (trials["point"] == row.point) & (trials["tamper"] == trained_on)]
    found: dict[int, Point] = {}
    for step in sorted(mine["steps"].dropna().astype(int).unique().tolist()):
        group = mine[mine["steps"] == step].assign(split="report")  # whose prompts they answered
        if points := rows_of(pooled(group, Store(run.folder.parent / "store"))):
            found[step] = points[0]
    return found


def _rate(point: Point, name: str) -> Rate:
    rate = rate_in(point, name)
    if point["seeds"] < 2:
        return rate
    return Rate(rate.value, point[f"{name}_runs_low"], point[f"{name}_runs_high"], rate.n, rate.unscored)


def tamper_figure(run: Run, found: Sequence[TamperCurve]) -> go.Figure:
    """Plots curves of attack success over the steps, in a row per training set and a column per benchmark."""
    rows = list(dict.fromkeys(one.trained_on for one in found))
    columns = list(dict.fromkeys(one.benchmark for one in found))
    figure = make_subplots(
        rows=len(rows),
        cols=len(columns),
        subplot_titles=[f"{benchmark}, {trained_on}" for trained_on in rows for benchmark in columns],
    )
    figure.update_layout(base_layout(340 * len(rows) + 60) | {"legend": {"orientation": "h", "y": 1.12, "x": 0}})
    for one in found:
        colour, symbol = styles(run.arms)[one.arm]
        figure.add_scatter(
            x=list(one.rates),
            y=[rate.value for rate in one.rates.values()],
            error_y=bars(list(one.rates.values()), colour) | {"thickness": 0.9, "width": 0},
            mode="lines+markers",
            marker={"color": colour, "symbol": symbol, "size": 8},
            line={"color": colour, "width": 1.5},
            name=one.arm,
            legendgroup=one.arm,
            showlegend=one.arm not in {trace.name for trace in figure.data},
            row=rows.index(one.trained_on) + 1,
            col=columns.index(one.benchmark) + 1,
        )
    target = {"color": GREY, "width": 1, "dash": "dot"}
    figure.add_hline(run.sweep["search"]["target_asr"], line=target, row="all", col="all")
    figure.update_xaxes(title={"text": "steps of further training", "standoff": 6}, gridcolor=GRID, zeroline=False)
    figure.update_yaxes(percent_axis("", rangemode="tozero"))
    figure.update_yaxes(title={"text": run.titles[ASR.name]}, col=1)
    figure.update_traces(cliponaxis=False)
    return figure
