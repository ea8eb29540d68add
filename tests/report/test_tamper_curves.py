"""Curves of attack success after further training: their points, the steps to breach, and where they are shown."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from safecomm.report.as_json import as_json
from safecomm.report.guide import guide
from safecomm.report.page import render
from safecomm.report.run import headline, read_run
from safecomm.report.table import results_table
from safecomm.report.tampering import Breach, tamper_curves
from safecomm.statistics.metrics import Rate, as_columns, rate

UNSAFE = {("safe_merge", 2): 1, ("safe_merge", 8): 20, ("undefended", 2): 20, ("undefended", 8): 20}


def steps(*intervals: tuple[float, float, float]) -> dict[int, Rate]:
    return {2 * at: Rate(value, low, high, 40, 0.0) for at, (low, value, high) in enumerate(intervals)}


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        (steps((0, 0.1, 0.2), (0.1, 0.3, 0.6), (0.4, 0.6, 0.8), (0.6, 0.8, 0.9)), "4 [2, 6]"),
        (steps((0, 0.0, 0.1), (0, 0.1, 0.2)), "none in 2 steps"),
        (steps((0, 0.0, 0.1), (0.3, 0.4, 0.6)), "more than 2 [2, more than 2]"),
        (steps((0.6, 0.7, 0.8), (0.7, 0.8, 0.9)), "0 [0, 0]"),
    ],
)
def test_steps_to_breach_are_the_first_at_which_the_rate_and_each_end_of_its_interval_exceed_the_target(
    rates: dict[int, Rate], expected: str
) -> None:
    assert str(Breach.of(rates, 0.5)) == expected


@pytest.fixture
def tampered(run_folder: Path, tmp_path: Path) -> Path:
    """The small run with further training on harmful examples, measured after 2 and 8 steps."""
    run = tmp_path / "small"
    shutil.copytree(run_folder, run)
    trials = pd.read_parquet(run / "trials.parquet")
    rows: list[dict[str, Any]] = []
    for (arm, at), unsafe in UNSAFE.items():
        for point in trials[(trials["arm"] == arm) & (trials["split"] == "report")].to_dict("records"):
            place = {name: point[name] for name in ("arm", "point", "seed", "status", "error", "log", "data")}
            rates = as_columns({"asr": rate(unsafe, 20, 20), "asr/lab-harm": rate(unsafe, 20, 20)})
            own = {"trial": f"{point['trial']}-{at}", "split": "tamper", "tamper": "harmful", "steps": at}
            rows.append(place | own | rates | {"evaluation": f"{arm}-{at}", "adapter": "a"})
    pd.concat([trials, pd.DataFrame(rows)], ignore_index=True).to_parquet(run / "trials.parquet")
    sweep = json.loads((run / "sweep.json").read_text())
    harmful = {"name": "lab-compliance", "path": None, "limit": 10}
    (run / "sweep.json").write_text(json.dumps(sweep | {"tamper": {"data": None, "harmful": harmful, "steps": [2, 8]}}))
    return run


def test_a_curve_starts_at_the_released_adapter_and_has_every_step(tampered: Path) -> None:
    run = read_run(tampered)
    curves = {one.arm: one for one in tamper_curves(run)}
    assert "original" not in curves
    released = {row.arm: row for row in headline(run)}
    merged = curves["safe_merge"]
    assert (merged.trained_on, merged.benchmark) == ("harmful examples", "lab-harm")
    assert {step: rate.value for step, rate in merged.rates.items()} == {
        0: released["safe_merge"].pooled["asr/lab-harm"],
        2: 0.05,
        8: 1.0,
    }
    assert merged.breach.high == 8
    assert curves["undefended"].breach.at == 0


def test_further_training_changes_no_other_number(tampered: Path, run_folder: Path) -> None:
    tampered_rows, rows = (
        [(row.arm, row.point, row.rates) for row in headline(read_run(run))] for run in (tampered, run_folder)
    )
    assert tampered_rows == rows
    assert not tamper_curves(read_run(run_folder))
    assert 'id="tamper"' not in render(read_run(run_folder))


def test_page_table_and_json_show_the_curves(tampered: Path) -> None:
    run = read_run(tampered)
    page = render(run)
    assert 'id="tamper"' in page
    assert 'data-plot="plot-tamper"' in page
    console = Console(width=140, file=(printed := io.StringIO()))
    console.print(results_table(tampered))
    text = printed.getvalue()
    assert "after steps of further training" in text
    assert "steps to breach" in text
    (curve,) = [one for one in as_json(run)["tamper"] if one["arm"] == "safe_merge"]
    assert curve["rates"][8]["value"] == 1.0
    assert curve["breach"]["high"] == 8
    assert "until the target is exceeded: 8 [" in str(guide(run))
