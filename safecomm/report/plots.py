"""Shared parts of a run's figures."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from safecomm.report.points import Point, rate_in, rows_of
from safecomm.report.run import Run, in_words, rate_in_words, settings
from safecomm.spec import ORIGINAL, UNDEFENDED
from safecomm.statistics.metrics import Rate

TITLE_PIXELS = 26
GREY = "#8a8f98"
GRID = "rgba(138,143,152,.25)"
REFERENCES = {ORIGINAL: (GREY, "diamond"), UNDEFENDED: ("#D55E00", "x")}
# The Okabe-Ito palette without black and yellow, which are invisible on dark and white pages. The symbols encode the
# arms as well.
COLOURS = ("#0B84D8", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")
SYMBOLS = ("circle", "square", "triangle-up", "pentagon", "star-triangle-down", "hexagon", "triangle-left")


def styles(arms: list[str]) -> dict[str, tuple[str, str]]:
    """Returns every arm's colour and marker symbol."""
    others = [arm for arm in arms if arm not in REFERENCES]
    own = {arm: (COLOURS[i % len(COLOURS)], SYMBOLS[i % len(SYMBOLS)]) for i, arm in enumerate(others)}
    return REFERENCES | own


def base_layout(height: int) -> dict[str, Any]:
    """Returns the common layout of all figures; the page sets the colours of text and grid."""
    return {
        "height": height,
        "margin": {"l": 64, "r": 24, "t": 56, "b": 56},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": GREY},
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        "hoverlabel": {"align": "left"},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": GREY, "activecolor": GREY},
        "template": "none",
    }


def titled_layout(height: int) -> dict[str, Any]:
    """Returns the layout of a figure whose plots have titles, which stand between them and the legend."""
    layout = base_layout(height)
    area = height - layout["margin"]["t"] - layout["margin"]["b"]
    return layout | {"legend": layout["legend"] | {"y": 1 + TITLE_PIXELS / area}}


def percent_axis(title: str, **more: Any) -> dict[str, Any]:
    """Returns an axis of rates."""
    return {"title": {"text": title}, "tickformat": ".0%", "zeroline": False, "gridcolor": GRID} | more


def hover(run: Run, row: Point) -> str:
    """Returns a point's hover text: its arm, settings and rates."""
    lines = [f"<b>{row['arm']}</b>", in_words(settings(run.sweep, row["arm"], row["point"]))]
    lines += [f"{run.titles[metric]}: {rate_in_words(rate_in(row, metric))}" for metric in run.metrics]
    return "<br>".join([*filter(None, lines), f"{_split(row)}, {row['seeds']} seed{'s' if row['seeds'] > 1 else ''}"])


def _split(row: Point) -> str:
    return f"{row['split']} split" + (", stopped early" if row["status"] == "stopped" else "")


def bars(rates: list[Rate], colour: str) -> dict[str, Any]:
    """Returns the error bars of 95% intervals."""
    above, below = [rate.high - rate.value for rate in rates], [rate.value - rate.low for rate in rates]
    return {"type": "data", "array": above, "arrayminus": below, "color": colour, "thickness": 1.4, "width": 4}


def add_curve(figure: go.Figure, run: Run, arm: str, rates: Mapping[int, Rate], cell: Mapping[str, int]) -> None:
    """Adds an arm's rates over steps, tries or turns to the plot in one cell of a figure."""
    colour, symbol = styles(run.arms)[arm]
    figure.add_scatter(
        x=list(rates),
        y=[rate.value for rate in rates.values()],
        error_y=bars(list(rates.values()), colour) | {"thickness": 0.9, "width": 0},
        mode="lines+markers",
        marker={"color": colour, "symbol": symbol, "size": 8},
        line={"color": colour, "width": 1.5},
        name=arm,
        legendgroup=arm,
        showlegend=arm not in {trace.name for trace in figure.data},
        **cell,
    )


def symbols(rows: Sequence[Point], symbol: str) -> list[str]:
    """Returns the points' marker symbols: hollow for those that stopped early."""
    return [f"{symbol}-open" if row["status"] == "stopped" else symbol for row in rows]


def search_points(run: Run, arm: str) -> list[Point]:
    """Returns an arm's points on the search split that have both an attack success rate and an accuracy."""
    if not {"asr", "accuracy"} <= set(run.metrics):
        return []
    points = run.points[(run.points["arm"] == arm) & (run.points["split"] == "search")].dropna(
        subset=["asr", "accuracy"]
    )
    return rows_of(points)
