"""Plots attack success against the other rates."""

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from safecomm.report.pareto import pareto_front
from safecomm.report.plots import (
    GREY,
    REFERENCES,
    bars,
    base_layout,
    hover,
    percent_axis,
    search_points,
    styles,
    symbols,
)
from safecomm.report.points import rows_of
from safecomm.report.run import Headline, Run, headline
from safecomm.statistics.metric_table import ACCURACY, ASR, BY_NAME, OVER_REFUSAL

Cell = dict[str, int]
Range = tuple[float, float]


def trade_off(run: Run) -> go.Figure:
    """Plots attack success against task accuracy and, if it was measured, against over-refusal.

    Small markers are points on the search split, with their Pareto front in the two rates. Large markers with 95%
    intervals are the headline table's points on the report split. The axes show the sweep's own arms; reference arms
    outside are named at the edge.
    """
    metrics = [metric for metric in (ACCURACY.name, OVER_REFUSAL.name) if metric in run.metrics]
    figure = make_subplots(rows=1, cols=len(metrics), horizontal_spacing=0.1)
    figure.update_layout(base_layout(480))
    style, rows = styles(run.arms), headline(run)
    for column, metric in enumerate(metrics, start=1):
        cell = {"row": 1, "col": column}
        _add_front(figure, run, metric, cell)
        for arm in run.arms:
            in_legend = column == 1 and arm not in {row.arm for row in rows}
            _add_search_points(figure, run, arm, metric, *style[arm], in_legend, cell)
        for row in rows:
            _add_report_point(figure, run, row, metric, *style[row.arm], cell)
        _add_axes(figure, run, rows, metric, cell)
    figure.update_traces(cliponaxis=True)
    return figure


def _add_front(figure: go.Figure, run: Run, metric: str, cell: Cell) -> None:
    front = pareto_front(run.points, [ASR.name, metric])
    figure.add_scatter(
        x=front[ASR.name].tolist() if len(front) else [],
        y=front[metric].tolist() if len(front) else [],
        mode="lines",
        line={"color": GREY, "width": 1.5, "dash": "dash", "shape": "hv"},
        name="Pareto front (search split)",
        legendgroup="front",
        showlegend=cell["col"] == 1,
        hoverinfo="skip",
        **cell,
    )


def _add_search_points(
    figure: go.Figure, run: Run, arm: str, metric: str, colour: str, symbol: str, in_legend: bool, cell: Cell
) -> None:
    rows = search_points(run, arm)
    figure.add_scatter(
        x=[row[ASR.name] for row in rows],
        y=[row[metric] for row in rows],
        mode="markers",
        marker={"color": colour, "symbol": symbols(rows, symbol), "size": 8, "opacity": 0.6},
        name=f"{arm}, search split",
        legendgroup=arm,
        showlegend=in_legend,
        hovertemplate=[f"{hover(run, row)}<extra></extra>" for row in rows],
        **cell,
    )


def _add_report_point(
    figure: go.Figure, run: Run, row: Headline, metric: str, colour: str, symbol: str, cell: Cell
) -> None:
    across, up = row.rates[ASR.name], row.rates[metric]
    if row.recommended:
        ring = {"symbol": "circle-open", "size": 30, "color": colour, "line": {"width": 2.5}}
        figure.add_scatter(
            x=[across.value],
            y=[up.value],
            mode="markers",
            marker=ring,
            name="recommended",
            legendgroup="recommended",
            legendrank=2000,
            showlegend=cell["col"] == 1,
            hoverinfo="skip",
            **cell,
        )
    figure.add_scatter(
        x=[across.value],
        y=[up.value],
        error_x=bars([across], colour),
        error_y=bars([up], colour),
        mode="markers",
        marker={"color": colour, "symbol": symbol, "size": 14, "line": {"color": "white", "width": 1}},
        name=row.arm,
        legendgroup=row.arm,
        showlegend=cell["col"] == 1,
        hovertemplate=f"{hover(run, row.pooled)}<extra></extra>",
        **cell,
    )


def _add_axes(figure: go.Figure, run: Run, rows: Sequence[Headline], metric: str, cell: Cell) -> None:
    target = run.sweep["search"]["target_asr"]
    across = _shown(run, rows, ASR.name, target)
    up = _shown(run, rows, metric)
    figure.update_xaxes(percent_axis(ASR.axis_title(run.domain), range=across), **cell)
    figure.update_yaxes(percent_axis(BY_NAME[metric].axis_title(run.domain), range=up), **cell)
    figure.update_xaxes(title={"standoff": 6}, **cell)
    figure.update_yaxes(title={"standoff": 4}, **cell)
    figure.add_vline(target, line={"color": GREY, "width": 1, "dash": "dot"}, **cell)
    note: dict[str, Any] = {"showarrow": False} | cell
    figure.add_annotation(x=target, y=up[1], text="target", xanchor="left", yanchor="top", **note)
    known = [row for row in rows if row.rates[ASR.name].n and row.rates[metric].n]
    outside = [row for row in known if not (_contains(across, row, ASR.name) and _contains(up, row, metric))]
    if outside:
        names = "<br>".join(
            f"{row.arm} ({row.rates[ASR.name].value:.0%}, {row.rates[metric].value:.0%})" for row in outside
        )
        note |= {"xanchor": "right", "yanchor": "bottom", "align": "right"}
        figure.add_annotation(x=across[1], y=up[0], text=f"outside:<br>{names}", **note)


def _shown(run: Run, rows: Sequence[Headline], metric: str, *more: float) -> Range:
    """Returns the range of an axis, which shows the sweep's own arms, and all arms if there are none."""
    arms = [arm for arm in run.arms if arm not in REFERENCES] or run.arms
    known = [row.rates[metric] for row in rows if row.arm in arms and row.rates[metric].n]
    found = [bound for rate in known for bound in (rate.low, rate.high)]
    points = rows_of(run.points[run.points["arm"].isin(arms) & (run.points["split"] == "search")])
    found = [value for value in (*found, *more, *(point[metric] for point in points)) if not math.isnan(value)]
    if not found:
        return 0.0, 1.0
    margin = 0.08 * (max(found) - min(found)) or 0.05
    return min(found) - margin, max(found) + margin


def _contains(shown: Range, row: Headline, metric: str) -> bool:
    """Returns whether an axis shows a row's rate."""
    return shown[0] <= row.rates[metric].value <= shown[1]
