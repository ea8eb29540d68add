"""The table by benchmark, category and judge counts what the trials hold, and the line on top says who judged when."""

import json
from pathlib import Path

import pandas as pd
import pytest
from benchmark import benchmark

from safecomm.judging.verdicts import read_rows
from safecomm.report.breakdown import MOST_CATEGORIES, BreakdownLine, breakdown
from safecomm.report.page import render
from safecomm.report.provenance import provenance
from safecomm.report.run import headline, read_run

MODEL = "meta-llama/Llama-Guard-3-8B"


@pytest.fixture
def many(tmp_path: Path) -> Path:
    return Path(benchmark("explorer").write_run(tmp_path, 400))


def lines(folder: Path) -> list[BreakdownLine]:
    run = read_run(folder)
    return breakdown(run, headline(run))


def test_each_line_counts_the_answers_of_its_part(many: Path) -> None:
    rows = read_rows(many.parent / "store" / "evaluation" / "e1")
    fraud = rows[(rows["benchmark"] == "harm") & (rows["category"] == "fraud")]
    for judge, column in (("guard", "verdict"), ("refusal", "verdict@refusal")):
        (line,) = [one for one in lines(many) if (one.benchmark, one.category, one.judge) == ("harm", "fraud", judge)]
        scored = fraud[fraud[column] != "unscored"]
        assert line.rates["undefended"].n == len(scored)
        assert line.rates["undefended"].value == pytest.approx((scored[column] == "unsafe").mean())
    assert [one.judge for one in lines(many) if one.benchmark == "quiz"] == [""] * (1 + 4)


def test_categories_that_name_every_prompt_are_no_parts(many: Path) -> None:
    for path in many.parent.glob("store/evaluation/*/rows.parquet"):
        rows = pd.read_parquet(path)
        rows.assign(category=[f"category {place}" for place in range(len(rows))]).to_parquet(path)
    assert {one.category for one in lines(many)} == {""} and MOST_CATEGORIES < 100


def test_a_run_without_its_answers_has_no_such_table(many: Path) -> None:
    for path in many.parent.glob("store/evaluation/e1/rows.parquet"):
        path.unlink()
    assert lines(many) == [] and 'id="breakdown"' not in render(read_run(many))


def test_the_page_says_who_judged_what_and_when(many: Path) -> None:
    sweep = json.loads((many / "sweep.json").read_text())
    sweep["evaluate"] |= {
        "judges": [{"name": "guard", "model": MODEL}, "refusal"],
        "grader": {"name": "g", "model": "m"},
    }
    (many / "sweep.json").write_text(json.dumps(sweep))
    run = read_run(many)
    assert "when is not recorded" in provenance(run, headline(run))
    (many / "models.json").write_text(json.dumps({MODEL: {"revision": "0123456789abcdef", "identity": "i"}}))
    for at in range(5):
        finished = {"finished": f"2026-11-28T0{at}:30:00+00:00"}
        (many.parent / "store" / "evaluation" / f"e{at}" / "lineage.json").write_text(json.dumps(finished))
    said = provenance(run, headline(run))
    assert f"guard ({MODEL}@0123456789ab), which decides, and refusal" in said
    assert "telecom answers by g (m)" in said
    assert "measured 2026-11-28 00:30 to 2026-11-28 04:30 UTC; 10 measurements took 10 s together" in said
    assert f"{said} Page written by safecomm" in render(run)
