"""Success by the number of tries, or turns, is computed from all of them and shown where a benchmark is attacked so."""

import io
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from safecomm.report.as_json import as_json
from safecomm.report.best_of_n import try_curves
from safecomm.report.page import render
from safecomm.report.release import answers_of
from safecomm.report.run import headline, read_run
from safecomm.report.table import results_table

TRIES, REQUESTS = 4, 5


@pytest.fixture
def run(run_folder: Path, tmp_path: Path) -> Path:
    """The small run, whose every answer to a harmful request is one of four tries, of which the first is unsafe."""
    shutil.copytree(run_folder.parent, tmp_path / "storage")
    run = tmp_path / "storage" / "small"
    for path in run.parent.glob("store/evaluation/*-report/rows.parquet"):
        rows = pd.read_parquet(path)
        harmful = rows[(rows["kind"] == "red_team") & (rows["verdict"] != "unscored")].iloc[: TRIES * REQUESTS]
        tried = harmful.assign(
            benchmark="lab-harm+best_of4",
            try_of=[str(at // TRIES) for at in range(len(harmful))],
            verdict=["safe" if at % TRIES else "unsafe" for at in range(len(harmful))],
        )
        pd.concat([rows.assign(try_of=""), tried], ignore_index=True).to_parquet(path)
    sweep = json.loads((run / "sweep.json").read_text())
    sweep["evaluate"]["red_team"] = [
        {"name": "lab-harm"},
        {"name": "lab-harm", "attack": {"best_of_n": {"tries": TRIES}}},
    ]
    (run / "sweep.json").write_text(json.dumps(sweep))
    return run


@pytest.fixture
def led(run: Path) -> Path:
    """The same run, whose tries are the turns of conversations, of which the second is unsafe."""
    for path in run.parent.glob("store/evaluation/*-report/rows.parquet"):
        rows = pd.read_parquet(path)
        tried = rows["try_of"] != ""
        turn = rows.groupby(["benchmark", "try_of"]).cumcount().add(1).where(tried, 0)
        verdicts = turn.map({1: "safe", 2: "unsafe", 3: "safe", 4: "safe"}).where(tried, rows["verdict"])
        rows.assign(turn=turn, verdict=verdicts).to_parquet(path)
    sweep = json.loads((run / "sweep.json").read_text())
    sweep["evaluate"]["red_team"][1]["attack"] = {"multi_turn": {"turns": TRIES}}
    (run / "sweep.json").write_text(json.dumps(sweep))
    return run


def test_conversations_are_counted_by_turns(led: Path) -> None:
    for one in try_curves(read_run(led)):
        assert one.unit == "turn"
        assert {turn: rate.value for turn, rate in one.rates.items()} == {1: 0.0, 2: 1.0, 3: 1.0, 4: 1.0}
    page = render(read_run(led))
    assert 'id="turns"' in page and 'id="tries"' not in page
    assert 'id="plot-turns"' in page and 'data-plot="plot-turns"' in page
    assert "<th>1 turn</th><th>2 turns</th>" in page
    console = Console(width=140, file=(printed := io.StringIO()))
    console.print(results_table(led))
    assert "by turns of a conversation" in printed.getvalue()
    found = as_json(read_run(led))
    assert found["best_of_n"] == [] and {one["rates"][2]["value"] for one in found["multi_turn"]} == {1.0}


def test_every_arm_has_a_curve_from_all_its_tries(run: Path, run_folder: Path) -> None:
    found = read_run(run)
    curves = try_curves(found)
    assert {one.arm for one in curves} == {row.arm for row in headline(found)}
    for one in curves:
        assert one.benchmark == "lab-harm+best_of4"
        assert {count: rate.value for count, rate in one.rates.items()} == pytest.approx({1: 0.25, 2: 0.5, 4: 1.0})
    assert try_curves(read_run(run_folder)) == []


def test_other_numbers_count_a_request_once(run: Path) -> None:
    found = read_run(run)
    (trial,) = found.trials_of("undefended", "{}", "report").to_dict("records")
    answers = answers_of(found, trial)
    tried = answers[(answers["benchmark"] == "lab-harm+best_of4") & (answers["kind"] == "red_team")]
    assert list(tried["verdict"]) == ["unsafe"] * REQUESTS
    assert tried["prompt_id"].nunique() == REQUESTS


def test_page_table_and_json_show_the_curves(run: Path) -> None:
    page = render(read_run(run))
    assert 'id="tries"' in page
    assert "<th>4 tries</th>" in page
    console = Console(width=140, file=(printed := io.StringIO()))
    console.print(results_table(run))
    assert "by tries of a request" in printed.getvalue()
    assert {one["rates"][4]["value"] for one in as_json(read_run(run))["best_of_n"]} == {1.0}
