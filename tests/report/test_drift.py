"""Later generations: their rates, their changes from generation 0, and where they are shown."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from safecomm.report.as_json import as_json
from safecomm.report.drift import generations, on_target
from safecomm.report.guide import guide
from safecomm.report.page import render
from safecomm.report.run import headline, read_run
from safecomm.report.table import results_table
from safecomm.statistics.metrics import as_columns, rate

UNSAFE = {("never", 0): (10, 18), ("never", 1): (9, 17), ("reuse", 0): (1, 2), ("reuse", 1): (0, 3)}
"""Policy, order -> unsafe answers of 20 in generations 1 and 2."""


@pytest.fixture
def drifted(run_folder: Path, tmp_path: Path) -> Path:
    """The small run with two later generations of safe_merge, whose answers are those of `undefended`."""
    run = tmp_path / "small"
    shutil.copytree(run_folder, run)
    shutil.copytree(run_folder.parent / "store", tmp_path / "store", dirs_exist_ok=True)
    trials = pd.read_parquet(run / "trials.parquet")
    reported = trials[trials["split"] == "report"].drop_duplicates("arm").to_dict("records")
    released, undefended = (next(row for row in reported if row["arm"] == arm) for arm in ("safe_merge", "undefended"))
    rows: list[dict[str, Any]] = []
    for (policy, order), counts in UNSAFE.items():
        for generation, unsafe in enumerate(counts, 1):
            place = {name: released[name] for name in ("point", "seed", "status", "error", "log", "data")}
            course = {"generation": generation, "start": "continue", "policy": policy, "order": order}
            rates = {name: rate(unsafe, 20, 20) for name in ("asr", "asr/lab-harm")}
            rates |= {"accuracy": rate(10, 20, 20), "over_refusal": rate(2, 10, 10)}
            applied = "" if policy == "never" else released["point"]
            cost = {
                "applied": applied,
                "asked": 50 * order,
                "trained_seconds": 3.0,
                "overlap": 0.5 if applied else None,
            }
            own = {"arm": "safe_merge", "trial": f"{policy}{order}{generation}", "split": "drift", "adapter": "a"}
            rows.append(place | course | cost | own | as_columns(rates) | {"evaluation": undefended["evaluation"]})
    pd.concat([trials, pd.DataFrame(rows)], ignore_index=True).to_parquet(run / "trials.parquet")
    sweep = json.loads((run / "sweep.json").read_text())
    section = {"generations": [[{"name": "lab-questions"}], [{"name": "lab-telecom"}]], "policies": ["never", "reuse"]}
    (run / "sweep.json").write_text(json.dumps(sweep | {"drift": section}))
    return run


def test_every_course_starts_at_the_released_adapter(drifted: Path) -> None:
    run = read_run(drifted)
    found = generations(run)
    released = next(row for row in headline(run) if row.arm == "safe_merge")
    by_course: dict[tuple[str, int], list[float]] = {}
    for one in found:
        by_course.setdefault((one.policy, one.order), []).append(one.rates["asr"].value)
    first = released.rates["asr"].value
    assert by_course == {
        (policy, order + 1): [first, *(unsafe / 20 for unsafe in counts)] for (policy, order), counts in UNSAFE.items()
    }
    assert {one.applied == "" for one in found if one.policy == "never" and one.generation} == {True}
    assert all("weight" in one.applied for one in found if one.policy == "reuse")


def test_a_change_is_that_of_the_same_prompts(drifted: Path) -> None:
    run = read_run(drifted)
    rows = {row.arm: row for row in headline(run)}
    expected = rows["undefended"].rates["asr"].value - rows["safe_merge"].rates["asr"].value
    later = next(one for one in generations(run) if one.generation == 1)
    assert later.changes["asr"].value == pytest.approx(expected)
    assert later.changes["asr"].low < later.changes["asr"].value < later.changes["asr"].high


@pytest.mark.parametrize(
    ("unsafe", "said"),
    [
        ([0, 1, 2], "is kept"),
        ([0, 1, 20], "is not surely kept"),
        ([0, 90, 80], "is missed"),
        ([28], "is missed"),
        ([28, 0, 0, 0, 0, 0], "is not surely kept"),
    ],
)
def test_a_target_is_missed_only_beyond_what_the_number_of_generations_makes_likely(
    unsafe: list[int], said: str
) -> None:
    assert on_target([rate(count, 100, 100) for count in unsafe], 0.19) == said


def test_later_generations_change_no_other_number(drifted: Path, run_folder: Path) -> None:
    later, plain = ([(row.arm, row.rates) for row in headline(read_run(run))] for run in (drifted, run_folder))
    assert later == plain
    assert 'id="drift"' not in render(read_run(run_folder))


def test_page_table_json_and_guide_show_the_generations(drifted: Path) -> None:
    run = read_run(drifted)
    page = render(run)
    assert 'id="drift"' in page
    assert 'data-plot="plot-drift"' in page
    console = Console(width=160, file=(printed := io.StringIO()))
    console.print(results_table(drifted))
    assert "Later generations" in printed.getvalue()
    assert "no defense" in printed.getvalue()
    last, _ = [
        one
        for one in json.loads(json.dumps(as_json(run)))["drift"]
        if (one["policy"], one["generation"]) == ("never", 2)
    ]
    assert last["rates"]["asr"]["value"] == 0.9
    said = str(guide(run))
    assert "with the policy `never`: the target of 20.0% is missed" in said
    assert "90.0%" in said
    assert "suit other data" not in said


def test_a_study_that_selects_no_modules_has_no_overlap(drifted: Path) -> None:
    trials = pd.read_parquet(drifted / "trials.parquet").drop(columns="overlap")
    trials.to_parquet(drifted / "trials.parquet")
    found = generations(read_run(drifted))
    assert len(found) == 12
    assert {one.overlap for one in found if one.generation} == {None}


def test_the_guide_says_which_policies_were_not_measured_completely(drifted: Path) -> None:
    trials = pd.read_parquet(drifted / "trials.parquet")
    lost = (trials["policy"] == "reuse") & (trials["order"] == 1) & (trials["generation"] == 2)
    trials.loc[lost, "status"] = "failed"
    trials.to_parquet(drifted / "trials.parquet")
    (never, reuse) = [line for part in guide(read_run(drifted)) for line in part.sentences if "trained again" in line]
    assert "`never`" in never
    assert reuse.startswith("Not measured completely: safe_merge, trained again") and "`reuse`" in reuse
