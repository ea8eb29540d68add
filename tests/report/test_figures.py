"""The figures show every arm, say what lies outside their axes, and mark what was measured in part."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest

from safecomm.report.curves import left_out
from safecomm.report.page import render
from safecomm.report.parallel import parallel
from safecomm.report.run import Run, read_run
from safecomm.report.trade_off import trade_off


@pytest.fixture(scope="module")
def run(run_folder: Path) -> Run:
    return read_run(run_folder)


@pytest.fixture
def partly_stopped(run_folder: Path, tmp_path: Path) -> Run:
    """The run, in which all points of safe_merge and one of safe_instruct were stopped early."""
    shutil.copytree(run_folder.parent, tmp_path / "storage")
    path = tmp_path / "storage" / "small" / "trials.parquet"
    trials = pd.read_parquet(path).assign(share=1.0, reason="")
    ended = trials["arm"].eq("safe_merge") | trials["point"].eq('{"safe_instruct.ratio": 0.01}')
    trials.loc[ended & trials["split"].eq("search"), ["status", "share"]] = ["stopped", 0.5]
    trials[trials["split"].eq("search") | ~ended].to_parquet(path)
    return read_run(path.parent)


def traces(figure: go.Figure, name: str) -> list[Any]:
    return [trace for trace in figure.data if trace.name == name]


def test_the_trade_off_has_a_plot_for_accuracy_and_one_for_over_refusal(run: Run) -> None:
    figure = trade_off(run)
    accuracy, over_refusal = traces(figure, "safe_instruct")
    assert (accuracy.x[0], accuracy.y[0]) == pytest.approx((3 / 20, 15 / 20))
    assert (over_refusal.x[0], over_refusal.y[0]) == pytest.approx((3 / 20, 2 / 10))
    assert len(traces(figure, "recommended")) == 2
    assert [trace.showlegend for trace in traces(figure, "safe_merge")] == [True, False]


def test_the_axes_show_the_sweeps_arms_and_name_references_outside(run: Run) -> None:
    """undefended has 13 of 20 unsafe; the arms' intervals and the target of 20% end below 50%."""
    figure = trade_off(run)
    low, high = figure.layout.xaxis.range
    assert low < 0 and 0.2 < high < 0.65
    outside = [note.text for note in figure.layout.annotations if "outside" in note.text]
    assert outside == ["outside:<br>undefended (65%, 85%)", "outside:<br>undefended (65%, 10%)"]


def test_before_the_report_split_is_measured_the_axes_show_the_search(run_folder: Path, tmp_path: Path) -> None:
    """As on the live page; every arm is in the legend."""
    shutil.copytree(run_folder, tmp_path / "small")
    trials = pd.read_parquet(tmp_path / "small" / "trials.parquet")
    trials[trials["split"] == "search"].to_parquet(tmp_path / "small" / "trials.parquet")
    found = read_run(tmp_path / "small")
    figure, lines = trade_off(found), parallel(found)
    assert figure.layout.xaxis.range[1] > 7 / 20 and figure.layout.yaxis.range[0] < 12 / 20
    assert lines is not None
    for drawn, name in ((figure, "{}, search split"), (lines, "{}")):
        assert [trace.name for trace in drawn.data if trace.showlegend is not False and "front" not in trace.name] == [
            name.format(arm) for arm in found.arms
        ]


def test_parallel_lines_reach_from_the_best_to_the_worst_of_every_rate(run: Run) -> None:
    figure = parallel(run)
    assert figure is not None
    lines = [trace for trace in figure.data if trace.showlegend is not False]
    assert {trace.name.split(",")[0] for trace in lines} == {"original", "undefended", "safe_instruct", "safe_merge"}
    for at in range(3):
        heights = [height for trace in figure.data for height in trace.y[at::4]]  # the fourth ends a line
        assert min(heights) == pytest.approx(0) and max(heights) == pytest.approx(1)
    (undefended,) = [trace for trace in lines if trace.name == "undefended"]
    assert undefended.y[0] == pytest.approx(0)  # the highest attack success is the worst
    ends = [note.text for note in figure.layout.annotations]
    assert ends[:2] == ["0.0%", "65.0%"]


def test_points_that_stopped_early_are_hollow_and_arms_without_a_plot_are_named(partly_stopped: Run) -> None:
    (plotted, _) = traces(trade_off(partly_stopped), "safe_merge, search split")
    assert set(plotted.marker.symbol) == {"square-open"} and "stopped early" in plotted.hovertemplate[0]
    (other, _) = traces(trade_off(partly_stopped), "undefended, search split")
    assert set(other.marker.symbol) == {"x"}
    assert left_out(partly_stopped) == ["safe_instruct"]
    assert "measured in full: safe_instruct." in render(partly_stopped)


def test_a_run_with_two_rates_has_one_plot_and_no_parallel_lines(run_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(run_folder, tmp_path / "small")
    trials = pd.read_parquet(tmp_path / "small" / "trials.parquet")
    kept = [name for name in trials if not name.startswith("over_refusal")]
    trials[kept].to_parquet(tmp_path / "small" / "trials.parquet")
    found = read_run(tmp_path / "small")
    assert parallel(found) is None and len(traces(trade_off(found), "safe_instruct")) == 1
    assert 'id="plot-parallel"' not in render(found)
