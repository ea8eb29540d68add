"""Plots all rates of a run beside each other, as parallel coordinates."""

import math
from collections.abc import Mapping, Sequence

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
    rows = headline(run)
    searched = {arm: search_points(run, arm) for arm in run.arms}
    values = [row.pooled for row in rows] + [row for points in searched.values() for row in points]
    scales = {
        metric: _scale(metric, [row[metric] for row in values if not math.isnan(row[metric])]) for metric in run.metrics
    }
    figure = go.Figure(layout=base_layout(420))
    for arm, points in searched.items():
        is_alone = arm not in {row.arm for row in rows}
        _add_lines(figure, run, points, scales, arm, width=1, name=arm, showlegend=is_alone and bool(points))
    for one in rows:
        name = f"{one.arm}, recommended" if one.recommended else one.arm
        _add_lines(figure, run, [one.pooled], scales, one.arm, width=4 if one.recommended else 2.5, name=name)
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


def _add_lines(
    figure: go.Figure,
    run: Run,
    points: Sequence[Point],
    scales: Mapping[str, Range],
    arm: str,
    width: float,
    **more: object,
) -> None:
    """Adds the lines of some of an arm's points, as one trace: a page with a trace per point is slow."""
    colour, symbol = styles(run.arms)[arm]
    has_own_colour = run.arms.index(arm) < len(COLOURS) + len(REFERENCES)
    labels = [_label(run, metric) for metric in scales]
    heights = [
        [(row[metric] - worst) / (best - worst) for metric, (best, worst) in scales.items()] + [None] for row in points
    ]
    texts = [[f"{hover(run, row)}<extra></extra>"] * (len(scales) + 1) for row in points]
    figure.add_scatter(
        x=[*labels, labels[-1]] * len(points),
        y=[height for line in heights for height in line],  # None ends a line
        mode="lines+markers",
        line={"color": colour, "width": width, "dash": "solid" if has_own_colour else "dash"},
        opacity=0.45 if width == 1 else 1,
        marker={
            "symbol": [one for one in symbols(points, symbol) for _ in range(len(scales) + 1)],
            "size": 6 if width == 1 else 12,
            "color": colour,
        },
        hovertemplate=[text for line in texts for text in line],
        legendgroup=arm,
        **more,
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
