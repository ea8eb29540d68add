"""Shared parts of a run's figures, and the plot of attack success against task accuracy."""

from typing import Any

import plotly.graph_objects as go

from safecomm.report.pareto import pareto_front
from safecomm.report.points import Point, rate_in, rows_of
from safecomm.report.run import Headline, Run, headline, in_words, rate_in_words, settings
from safecomm.spec import ORIGINAL, UNDEFENDED
from safecomm.statistics.metric_table import ACCURACY, ASR
from safecomm.statistics.metrics import Rate

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


def percent_axis(title: str, **more: Any) -> dict[str, Any]:
    """Returns an axis of rates."""
    return {"title": {"text": title}, "tickformat": ".0%", "zeroline": False, "gridcolor": GRID} | more


def hover(run: Run, row: Point) -> str:
    """Returns a point's hover text: its arm, settings and rates."""
    lines = [f"<b>{row['arm']}</b>", in_words(settings(run.sweep, row["arm"], row["point"]))]
    lines += [f"{run.titles[metric]}: {rate_in_words(rate_in(row, metric))}" for metric in run.metrics]
    return "<br>".join(
        [*filter(None, lines), f"{row['split']} split, {row['seeds']} seed{'s' if row['seeds'] > 1 else ''}"]
    )


def bars(rates: list[Rate], colour: str) -> dict[str, Any]:
    """Returns the error bars of 95% intervals."""
    above, below = [rate.high - rate.value for rate in rates], [rate.value - rate.low for rate in rates]
    return {"type": "data", "array": above, "arrayminus": below, "color": colour, "thickness": 1.4, "width": 4}


def trade_off(run: Run) -> go.Figure:
    """Plots attack success against task accuracy.

    Small markers are points on the search split, with their Pareto front in these two metrics. Large markers with 95%
    intervals are the headline table's points on the report split.
    """
    figure = go.Figure(layout=base_layout(560))
    style = styles(run.arms)
    _add_front(figure, run)
    for arm in run.arms:
        _add_search_points(figure, run, arm, *style[arm])
    for row in headline(run):
        _add_report_point(figure, run, row, *style[row.arm])
    figure.add_vline(run.sweep["search"]["target_asr"], line={"color": GREY, "width": 1, "dash": "dot"})
    figure.add_annotation(
        x=run.sweep["search"]["target_asr"],
        y=0,
        yref="paper",
        text="target",
        showarrow=False,
        xanchor="left",
        yanchor="bottom",
    )
    figure.update_xaxes(percent_axis(ASR.axis_title(run.domain), rangemode="tozero"))
    figure.update_yaxes(percent_axis(ACCURACY.axis_title(run.domain)))
    figure.update_traces(cliponaxis=False)  # rates of 0% lie on the axis
    return figure


def _add_front(figure: go.Figure, run: Run) -> None:
    front = pareto_front(run.points, ["asr", "accuracy"])
    figure.add_scatter(
        x=front["asr"].tolist() if len(front) else [],
        y=front["accuracy"].tolist() if len(front) else [],
        mode="lines",
        line={"color": GREY, "width": 1.5, "dash": "dash", "shape": "hv"},
        name="Pareto front (search split)",
        hoverinfo="skip",
    )


def _add_search_points(figure: go.Figure, run: Run, arm: str, colour: str, symbol: str) -> None:
    rows = search_points(run, arm)
    figure.add_scatter(
        x=[row["asr"] for row in rows],
        y=[row["accuracy"] for row in rows],
        mode="markers",
        marker={"color": colour, "symbol": symbol, "size": 8, "opacity": 0.6},
        name=f"{arm}, search split",
        legendgroup=arm,
        showlegend=False,
        hovertemplate=[f"{hover(run, row)}<extra></extra>" for row in rows],
    )


def _add_report_point(figure: go.Figure, run: Run, row: Headline, colour: str, symbol: str) -> None:
    asr, accuracy = row.rates["asr"], row.rates["accuracy"]
    if row.recommended:
        ring = {"symbol": "circle-open", "size": 30, "color": colour, "line": {"width": 2.5}}
        position = {"x": [asr.value], "y": [accuracy.value]}
        label = {"name": "recommended", "legendrank": 2000, "hoverinfo": "skip"}
        figure.add_scatter(**position, mode="markers", marker=ring, **label)
    figure.add_scatter(
        x=[asr.value],
        y=[accuracy.value],
        error_x=bars([asr], colour),
        error_y=bars([accuracy], colour),
        mode="markers",
        marker={"color": colour, "symbol": symbol, "size": 14, "line": {"color": "white", "width": 1}},
        name=row.arm,
        legendgroup=row.arm,
        showlegend=row.arm not in {trace.name for trace in figure.data},
        hovertemplate=f"{hover(run, row.pooled)}<extra></extra>",
    )


def search_points(run: Run, arm: str) -> list[Point]:
    """Returns an arm's points on the search split that have both an attack success rate and an accuracy."""
    if not {"asr", "accuracy"} <= set(run.metrics):
        return []
    points = run.points[(run.points["arm"] == arm) & (run.points["split"] == "search")].dropna(
        subset=["asr", "accuracy"]
    )
    return rows_of(points)
