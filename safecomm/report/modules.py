"""Plots rho per module: how far each module's update agrees with the model's alignment."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots
from pydantic import BaseModel, FiniteFloat

from safecomm.report.plots import COLOURS, GREY, GRID, base_layout
from safecomm.report.points import Point, rows_of
from safecomm.report.run import Run, settings
from safecomm.report.run_files import read_as
from safecomm.storage.names import MODULES, PROFILE

MOST_COLUMNS = 4


class _SavedModule(BaseModel):
    name: str
    rho: FiniteFloat
    null: FiniteFloat


class _Saved(BaseModel):
    """What is read of `profile.json`."""

    modules: list[_SavedModule]


@dataclass(frozen=True)
class Profile:
    """The alignment profile of one fine-tune, and the modules that the recommended point changes."""

    arm: str
    seed: int
    modules: list[dict[str, Any]]
    """`name`, `rho`, `null` and norms."""
    threshold: float | None
    """The recommended point's rho threshold, or None if it selects modules differently."""
    selected: frozenset[str]
    """Names of the modules that the recommended point changes; empty if unknown."""


def read_profile(run: Run) -> Profile | None:
    """Returns the recommended point's profile, or else that of the first finished trial with one, or None.

    For a chain of defenses, the profile and the selected modules are those of the last defense.
    """
    chosen = run.outcome["recommended"] or {}
    own = run.trials_of(chosen.get("arm", ""), chosen.get("point", ""), "report")
    for row in rows_of(own):
        if modules := _modules(run, row):
            return Profile(row["arm"], row["seed"], modules, _threshold(run, row), _selected(run, row))
    for row in rows_of(run.trials[run.trials["status"] == "done"]):
        if modules := _modules(run, row):
            return Profile(row["arm"], row["seed"], modules, None, frozenset())
    return None


def _modules(run: Run, row: Point) -> list[dict[str, Any]]:
    if not row["profile"]:
        return []
    folder = run.stage("profile", str(row["profile"]))
    if not (folder / PROFILE).is_file():
        return []
    modules: list[dict[str, Any]] = read_as(folder, PROFILE, _Saved)["modules"]
    return modules


def _threshold(run: Run, row: Point) -> float | None:
    values = settings(run.sweep, row["arm"], row["point"])
    ways = [name for name in values if name.endswith((".threshold", ".lowest"))]
    return float(values[ways[-1]]) if ways and ways[-1].endswith(".threshold") else None


def _selected(run: Run, row: Point) -> frozenset[str]:
    """Returns the modules that the realign stage changed."""
    folder = run.stage("realign", Path(str(row.get("adapter_path", ""))).name)
    return frozenset(read_as(folder, MODULES, list[str])) if (folder / MODULES).is_file() else frozenset()


def _type_and_layer(name: str) -> tuple[str, int]:
    """Returns a module's type and layer, e.g. `q_proj`, 3 for `model.layers.3.self_attn.q_proj`."""
    layer = re.search(r"\.([0-9]{1,9})\.", name)
    return name.rsplit(".", 1)[-1], int(layer.group(1)) if layer else 0


def rho_figure(profile: Profile) -> go.Figure:
    """Returns rho by layer with a panel per module type, and the rho of a random alignment for comparison."""
    kinds = list(dict.fromkeys(_type_and_layer(module["name"])[0] for module in profile.modules))
    columns = min(MOST_COLUMNS, len(kinds))
    rows = -(-len(kinds) // columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        shared_yaxes="all",
        subplot_titles=kinds,
        horizontal_spacing=0.03,
        vertical_spacing=0.34 / rows,
    )
    figure.update_layout(base_layout(140 + 220 * rows))
    figure.update_layout(margin={"t": 90}, legend={"y": 1 + 34 / (220 * rows)})
    for at, kind in enumerate(kinds):
        cell = {"row": at // columns + 1, "col": at % columns + 1}
        _add_panel(figure, profile, [m for m in profile.modules if _type_and_layer(m["name"])[0] == kind], cell)
    figure.update_xaxes(title={"text": "layer", "standoff": 4}, gridcolor=GRID, zeroline=False, tickformat="d")
    figure.update_yaxes(gridcolor=GRID, zeroline=False)
    figure.update_yaxes(title={"text": "rho"}, col=1)
    return figure


def _add_panel(figure: go.Figure, profile: Profile, modules: list[dict[str, Any]], cell: dict[str, int]) -> None:
    first = cell == {"row": 1, "col": 1}
    layers = [_type_and_layer(module["name"])[1] for module in modules]
    null = {"symbol": "line-ew", "size": 15, "line": {"color": GREY, "width": 2}}
    figure.add_scatter(
        x=layers,
        y=[module["null"] for module in modules],
        mode="markers",
        marker=null,
        name="random alignment of the same shape",
        legendgroup="null",
        showlegend=first,
        hovertemplate="random alignment: %{y:.3f}<extra></extra>",
        **cell,
    )
    for chosen, label in ((True, "selected by the recommended point"), (False, "unchanged")):
        group = [
            (layer, m) for layer, m in zip(layers, modules, strict=True) if (m["name"] in profile.selected) is chosen
        ]
        figure.add_scatter(
            x=[layer for layer, _ in group],
            y=[module["rho"] for _, module in group],
            mode="markers",
            marker={
                "symbol": "circle" if chosen else "circle-open",
                "size": 10,
                "color": COLOURS[0],
                "line": {"width": 2, "color": COLOURS[0]},
            },
            name=label if profile.selected else "rho",
            legendgroup=label,
            showlegend=first and (bool(profile.selected) or not chosen),
            hovertemplate=[f"<b>{module['name']}</b><br>rho {module['rho']:.4f}<extra></extra>" for _, module in group],
            **cell,
        )
    if profile.threshold is not None:
        figure.add_hline(profile.threshold, line={"color": "#D55E00", "width": 1.2, "dash": "dash"}, **cell)
