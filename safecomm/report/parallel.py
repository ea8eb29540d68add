"""Plots all rates of a run beside each other, as parallel coordinates."""

import math
from collections.abc import Mapping

import plotly.graph_objects as go

from safecomm.report.plots import COLOURS, GREY, GRID, REFERENCES, base_layout, hover, search_points, styles, symbols
from safecomm.report.points import Point
from safecomm.report.run import Run, headline
from safecomm.statistics.metric_table import BY_NAME

Range = tuple[float, float]
"""A rate's best and worst value; the best is at the top."""


def parallel(run: Run) -> go.Figure | None:
    """Draws every point as a line across the rates, where higher is better; None with fewer than three rates.

    Thin lines are points on the search split, thick ones the headline table's points on the report split. Each axis has
    its own scale, from the best to the worst value that any of these points has.
    """
    if len(run.metrics) < 3:
        return None
    rows, style = headline(run), styles(run.arms)
    searched = {arm: search_points(run, arm) for arm in run.arms}
    values = [row.pooled for row in rows] + [row for points in searched.values() for row in points]
    scales = {
        metric: _scale(metric, [row[metric] for row in values if not math.isnan(row[metric])]) for metric in run.metrics
    }
    figure = go.Figure(layout=base_layout(420))
    dashes = {arm: "solid" if at < len(COLOURS) + len(REFERENCES) else "dash" for at, arm in enumerate(run.arms)}
    for arm, points in searched.items():
        in_legend = arm not in {row.arm for row in rows}
        for at, row in enumerate(points):
            thin = {"color": style[arm][0], "width": 1, "dash": dashes[arm]}
            label = {"name": arm, "legendgroup": arm, "showlegend": in_legend and at == 0}
            _add_line(figure, run, row, scales, thin, style[arm][1], **label)
    for one in rows:
        line = {"color": style[one.arm][0], "width": 4 if one.recommended else 2.5, "dash": dashes[one.arm]}
        label = {"name": f"{one.arm}, recommended" if one.recommended else one.arm, "legendgroup": one.arm}
        _add_line(figure, run, one.pooled, scales, line, style[one.arm][1], **label | {"showlegend": True})
    _add_axes(figure, run, scales)
    return figure


def _label(run: Run, metric: str) -> str:
    """Returns a rate's title in lines, so that three fit beside each other on a phone."""
    return run.titles[metric].replace(" ", "<br>")


def _scale(metric: str, values: list[float]) -> Range:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if low == high:
        low, high = max(0.0, low - 0.01), min(1.0, high + 0.01)
    return (low, high) if BY_NAME[metric].direction == "min" else (high, low)


def _add_line(
    figure: go.Figure,
    run: Run,
    row: Point,
    scales: Mapping[str, Range],
    line: Mapping[str, object],
    symbol: str,
    **more: object,
) -> None:
    is_thick = line["width"] != 1
    figure.add_scatter(
        x=[_label(run, metric) for metric in scales],
        y=[(row[metric] - worst) / (best - worst) for metric, (best, worst) in scales.items()],
        mode="lines+markers",
        line=line,
        opacity=1 if is_thick else 0.45,
        marker={"symbol": symbols([row], symbol)[0], "size": 12 if is_thick else 6, "color": line["color"]},
        hovertemplate=f"{hover(run, row)}<extra></extra>",
        **({"showlegend": False} | more),
    )


def _add_axes(figure: go.Figure, run: Run, scales: Mapping[str, Range]) -> None:
    figure.update_yaxes(visible=False, range=(-0.12, 1.12))
    figure.update_xaxes(
        tickangle=0, showgrid=True, gridcolor=GRID, gridwidth=2, zeroline=False, range=(-0.3, len(scales) - 0.7)
    )
    for metric, ends in scales.items():
        for end, place, anchor in zip(ends, (1.04, -0.04), ("bottom", "top"), strict=True):
            figure.add_annotation(
                x=_label(run, metric), y=place, text=f"{end:.1%}", yanchor=anchor, showarrow=False, font={"color": GREY}
            )
