"""The sweep's W&B run holds what a reader of the report looks for first; checked in the offline files."""

import json
from pathlib import Path

import wandb

from safecomm.sweep.tracked_results import _log_results


def test_the_sweeps_run_has_arms_figures_and_guide(run_folder: Path, tmp_path: Path) -> None:
    run = wandb.init(mode="offline", dir=tmp_path, project="p", settings=wandb.Settings(silent=True))
    _log_results(run, run_folder)
    summary = {name: run.summary[name] for name in ("recommended", "best")}
    run.finish()
    media = next(tmp_path.glob("wandb/offline-run-*/files/media"))
    plots = {path.name.split("_")[0]: json.loads(path.read_text()) for path in media.glob("plotly/*.json")}
    assert {"trade-off", "parallel", "curves"} <= set(plots)
    assert all(plot["data"] for plot in plots.values())
    (arms,) = media.glob("table/arms_*.json")
    table = json.loads(arms.read_text())
    row = dict(zip(table["columns"], next(row for row in table["data"] if row[0] == "safe_merge"), strict=True))
    assert row["recommended"] is (summary["recommended"]["arm"] == "safe_merge")
    assert all("[" in row[title] and "n=" in row[title] for title in table["columns"][4:])
    assert len(table["columns"]) > 4
    (samples,) = media.glob("table/samples_*.json")
    assert {"text", "response", "verdict"} <= set(json.loads(samples.read_text())["columns"])
    (page,) = media.glob("html/guide_*.html")
    assert "Which adapter?" in page.read_text()
