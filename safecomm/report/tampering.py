"""How attack success returns when the released adapters are trained further (section `tamper`)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from safecomm.report.plots import GREY, GRID, add_curve, percent_axis, titled_layout
from safecomm.report.points import Point, pooled, rate_in, rows_of
from safecomm.report.run import Headline, Run, headline
from safecomm.search.arms import TAMPER
from safecomm.spec.tamper import Tampering
from safecomm.statistics.metric_table import ASR
from safecomm.statistics.metrics import Rate
from safecomm.storage.store import Store

TITLES: dict[Tampering, str] = {
    "data": "harmless data",
    "harmful": "harmful examples",
    "data_then_harmful": "harmful examples after the harmless data",
}
"""What an adapter is trained on, in words."""


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
class MeasuredTraining:
    """One way to train an arm's released adapter further, and its rates after each number of steps."""

    arm: str
    trained_on: str
    """In words."""
    learning_rate: float | None
    """None if the sweep has only one."""
    points: Mapping[int, Point]
    """Step -> rates, pooled over seeds. Step 0 is the released adapter or, after the harmless data, what they left."""


@dataclass(frozen=True)
class TamperCurve:
    """Attack success on one benchmark after further training of an arm's released adapter."""

    arm: str
    trained_on: str
    """In words."""
    learning_rate: float | None
    """None if the sweep has only one."""
    benchmark: str
    rates: dict[int, Rate]
    """Step -> attack success, from step 0 on, the start. Intervals are those for further seeds if there are several."""
    breach: Breach

    @property
    def training(self) -> str:
        """The training in words."""
        return training_in_words(self.trained_on, self.learning_rate)


def training_in_words(trained_on: str, learning_rate: float | None) -> str:
    """Returns a training set and a learning rate in words."""
    return trained_on if learning_rate is None else f"{trained_on}, learning rate {learning_rate:g}"


def measured_trainings(run: Run) -> list[MeasuredTraining]:
    """Returns the trainings of all arms that were measured; empty without a section `tamper`."""
    section: dict[str, Any] = run.sweep.get("tamper") or {}
    if not section or "tamper" not in run.trials:
        return []
    listed = section.get("learning_rate")
    found = []
    for learning_rate in listed if isinstance(listed, list) else [None]:
        for row in headline(run):
            measured = {name: _by_step(run, row, name, learning_rate) for name in TITLES}
            harmless = measured["data"].get(section["steps"][-1])
            for trained_on, further in measured.items():
                start = harmless if trained_on == "data_then_harmful" else row.pooled
                if further and start:
                    points = {0: start, **further}
                    found.append(MeasuredTraining(row.arm, TITLES[trained_on], learning_rate, points))
    return sorted(found, key=lambda one: [*TITLES.values()].index(one.trained_on))


def tamper_curves(run: Run) -> list[TamperCurve]:
    """Returns a curve for every arm, training and benchmark; empty without a section `tamper`."""
    target = run.sweep["search"]["target_asr"]
    curves = []
    for one in measured_trainings(run):
        for benchmark in attacked(one.points[0]):
            rates = {step: attack_success(point, benchmark) for step, point in one.points.items()}
            place = (one.arm, one.trained_on, one.learning_rate, benchmark)
            curves.append(TamperCurve(*place, rates, Breach.of(rates, target)))
    return curves


def _by_step(run: Run, row: Headline, trained_on: Tampering, learning_rate: float | None) -> dict[int, Point]:
    """Returns step -> pooled row of an arm's point."""
    trials = run.trials[run.trials["split"] == TAMPER]
    mine = trials[(trials["arm"] == row.arm) & (trials["point"] == row.point) & (trials["tamper"] == trained_on)]
    rates = mine.get("learning_rate", pd.Series(math.nan, mine.index))
    mine = mine[rates.isna() if learning_rate is None else rates == learning_rate]
    found: dict[int, Point] = {}
    for step in sorted(mine["steps"].dropna().astype(int).unique().tolist()):
        group = mine[mine["steps"] == step].assign(split="report")  # whose prompts they answered
        if points := rows_of(pooled(group, Store(run.folder.parent / "store"))):
            found[step] = points[0]
    return found


def attacked(point: Point) -> list[str]:
    """Returns the red-team benchmarks of a point."""
    names = [key for key in point if key.startswith(f"{ASR.name}/") and f"{key}_low" in point]
    return [name.partition("/")[2] for name in names]


def attack_success(point: Point, benchmark: str) -> Rate:
    """Returns attack success on a benchmark; with several seeds, its interval is the one for further seeds."""
    name = f"{ASR.name}/{benchmark}"
    rate = rate_in(point, name)
    if point["seeds"] < 2:
        return rate
    return Rate(rate.value, point[f"{name}_runs_low"], point[f"{name}_runs_high"], rate.n, rate.unscored)


def tamper_figure(run: Run, found: Sequence[TamperCurve]) -> go.Figure:
    """Plots curves of attack success over the steps, in a row per training set and a column per benchmark."""
    rows = list(dict.fromkeys(one.training for one in found))
    columns = list(dict.fromkeys(one.benchmark for one in found))
    figure = make_subplots(
        rows=len(rows),
        cols=len(columns),
        subplot_titles=[f"{benchmark}, {training}" for training in rows for benchmark in columns],
    )
    figure.update_layout(titled_layout(340 * len(rows) + 60))
    for one in found:
        cell = {"row": rows.index(one.training) + 1, "col": columns.index(one.benchmark) + 1}
        add_curve(figure, run, one.arm, one.rates, cell)
    target = {"color": GREY, "width": 1, "dash": "dot"}
    figure.add_hline(run.sweep["search"]["target_asr"], line=target, row="all", col="all")
    figure.update_xaxes(title={"text": "steps of further training", "standoff": 6}, gridcolor=GRID, zeroline=False)
    figure.update_yaxes(percent_axis("", rangemode="tozero"))
    figure.update_yaxes(title={"text": run.titles[ASR.name]}, col=1)
    figure.update_traces(cliponaxis=False)
    return figure
