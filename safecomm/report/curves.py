"""Plots every metric against every searched parameter."""

import json
from collections.abc import Iterator
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from safecomm.report.plots import (
    GRID,
    REFERENCES,
    bars,
    base_layout,
    hover,
    percent_axis,
    search_points,
    styles,
    symbols,
)
from safecomm.report.points import Point, rate_in
from safecomm.report.run import Run
from safecomm.spec import ORIGINAL, UNDEFENDED
from safecomm.statistics.metric_table import BY_NAME

Series = list[tuple[float, Point]]
"""A parameter's values in ascending order, each with its point."""
DASHES = {ORIGINAL: "dot", UNDEFENDED: "dash"}


def searched(run: Run) -> dict[str, dict[str, Series]]:
    """Returns parameter -> arm -> search-split points, for arms that tried at least two values of the parameter."""
    found: dict[str, dict[str, Series]] = {}
    for arm in run.arms:
        points = [(json.loads(row["point"]), row) for row in search_points(run, arm)]
        for name in dict.fromkeys(name for values, _ in points for name in values):
            series = sorted(((values[name], row) for values, row in points if name in values), key=lambda pair: pair[0])
            if len({value for value, _ in series}) > 1:
                found.setdefault(name, {})[arm] = series
    return found


def left_out(run: Run) -> list[str]:
    """Returns the arms that tried several settings but have no plot, because fewer than two were measured in full."""
    plotted = {arm for by_arm in searched(run).values() for arm in by_arm}
    tried = run.trials[run.trials["split"] == "search"].groupby("arm")["point"].nunique()
    return [arm for arm in run.arms if tried.get(arm, 0) > 1 and arm not in plotted]


def curves(run: Run) -> go.Figure | None:
    """Returns a grid of plots, with a row per parameter and a column per metric; None if nothing was searched.

    If the parameter is the only one that an arm searched, a line connects its points. Otherwise the points also differ
    in other parameters, and there is no line.
    """
    parameters = searched(run)
    if not parameters:
        return None
    height = 300 * len(parameters)
    figure = make_subplots(
        rows=len(parameters),
        cols=len(run.metrics),
        horizontal_spacing=0.09,
        vertical_spacing=84 / height if len(parameters) > 1 else 0,
    )
    figure.update_layout(base_layout(height + 60))
    lines: list[dict[str, Any]] = []
    for row, (name, by_arm) in enumerate(parameters.items(), start=1):
        for column, metric in enumerate(run.metrics, start=1):
            cell = {"row": row, "col": column}
            for arm, series in by_arm.items():
                is_only = sum(arm in others for others in parameters.values()) == 1
                _add_series(figure, run, arm, series, metric, is_only, cell)
            lines += _references(figure, run, metric, cell)
            _add_axes(figure, run, name, [value for series in by_arm.values() for value, _ in series], metric, cell)
    figure.update_layout(shapes=lines)  # at once: `add_hline` takes a tenth of a second
    figure.update_traces(cliponaxis=False)  # a mark at 0 is shown whole
    return figure


def _add_series(
    figure: go.Figure, run: Run, arm: str, series: Series, metric: str, is_only: bool, cell: dict[str, int]
) -> None:
    colour, symbol = styles(run.arms)[arm]
    figure.add_scatter(
        x=[value for value, _ in series],
        y=[row[metric] for _, row in series],
        error_y=bars([rate_in(row, metric) for _, row in series], colour) | {"thickness": 0.9, "width": 0},
        mode="lines+markers" if is_only else "markers",
        marker={"color": colour, "symbol": symbols([row for _, row in series], symbol), "size": 8},
        line={"color": colour, "width": 1.5},
        name=arm,
        legendgroup=arm,
        showlegend=arm not in {trace.name for trace in figure.data},
        hovertemplate=[f"{hover(run, row)}<extra></extra>" for _, row in series],
        **cell,
    )


def _references(figure: go.Figure, run: Run, metric: str, cell: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Yields a horizontal line across one plot for every reference arm."""
    plot = figure.get_subplot(**cell)
    x, y = (axis.plotly_name.replace("axis", "") for axis in (plot.xaxis, plot.yaxis))
    for arm, dash in DASHES.items():
        for row in search_points(run, arm)[:1]:
            line = {"color": REFERENCES[arm][0], "width": 1.2, "dash": dash}
            ends = {"x0": 0, "x1": 1, "xref": f"{x} domain", "y0": row[metric], "y1": row[metric], "yref": y}
            yield {"type": "line", "line": line} | ends


def _add_axes(figure: go.Figure, run: Run, name: str, values: list[float], metric: str, cell: dict[str, int]) -> None:
    figure.update_xaxes(title={"text": name, "standoff": 6}, gridcolor=GRID, zeroline=False, **cell)
    if 0 < min(values) < 1 and max(values) / min(values) >= 20:  # spans orders of magnitude and is not a count
        figure.update_xaxes(type="log", tickvals=sorted(set(values)) if len(set(values)) <= 6 else None, **cell)
    figure.update_yaxes(
        percent_axis(run.titles[metric], rangemode="tozero" if BY_NAME[metric].direction == "min" else "normal"),
        **cell,
    )
    figure.update_yaxes(title={"standoff": 4}, **cell)
