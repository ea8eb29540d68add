"""Records survive a round trip through JSON, and docs/trials.md lists their columns."""

import ast
import copy
import inspect
import json
import logging
import math
from dataclasses import replace
from pathlib import Path

import pytest
from small_sweep import LEAST

from safecomm.search.arms import DRIFT, Trial
from safecomm.search.generation import Generation
from safecomm.search.record import NOT_IN_THE_TABLE, TrialRecord
from safecomm.search.run_folder import RunFolder
from safecomm.spec import Sweep
from safecomm.statistics.metrics import Rate
from safecomm.storage.versions import VERSIONS

DOCS = Path(__file__).parents[2] / "docs" / "trials.md"
TRIAL = Trial("safe_lora", {"safe_lora.lowest": 2}, (("safe_lora", {"lowest": 2}),), seed=1)
RATES = {"asr": Rate(0.25, 0.1, 0.5, 12, 0.0), "asr@refusal/lab-harm": Rate(0.5, 0.2, 0.8, 6, 0.5)}
DONE = TrialRecord.of(TRIAL, "done", reason="", share=1.0, evaluation="e1", seconds=2.5, rates=RATES)


def folder(storage: Path) -> RunFolder:
    return RunFolder(Sweep.model_validate(LEAST | {"arms": {}, "storage": str(storage)}))


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    kept = folder(tmp_path).keep(DONE)
    assert kept.context and folder(tmp_path).find(TRIAL) == kept
    failed = folder(tmp_path).keep(TrialRecord.of(TRIAL, "failed", error="no", traceback="line 1", log="stderr"))
    assert folder(tmp_path).record(TRIAL) == failed and folder(tmp_path).find(TRIAL) is None


@pytest.mark.parametrize("stage", ["responses", "replies", "surprisal", "evaluation"])
def test_a_raise_that_changes_rates_outdates_the_records(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a resumed sweep would compare points that were judged in two ways."""
    folder(tmp_path).keep(DONE)
    monkeypatch.setitem(VERSIONS, stage, VERSIONS[stage] + 1)
    assert folder(tmp_path).find(TRIAL) is None


def test_a_record_is_read_from_a_ray_tune_report_with_other_keys() -> None:
    reported = DONE.to_json() | {"trial_id": "x", "done": True, "config": {"trial": {}}, "time_total_s": 3.0}
    assert TrialRecord.from_json(reported) == DONE


def test_a_rate_without_verdicts_stays_unknown() -> None:
    unknown = TrialRecord.of(TRIAL, "done", rates={"asr": Rate(math.nan, 0.0, 1.0, 0, 1.0)})
    read = TrialRecord.from_json(json.loads(json.dumps(unknown.to_json())))
    assert math.isnan(read.value("asr")) and read.rates["asr"].unscored == 1.0
    assert math.isnan(read.value("accuracy")) and "accuracy" not in read.rates


def test_fields_that_a_trial_did_not_reach_are_omitted() -> None:
    row = TrialRecord.of(TRIAL, "failed", error="no", traceback="line 1", log="stderr").to_row()
    assert list(row) == ["trial", "arm", "point", "seed", "split", "error", "status", "log"]
    assert row["point"] == '{"safe_lora.lowest": 2}'


@pytest.mark.parametrize(
    "text",
    ["[]", "{}", "null", '{"status": "done"}', json.dumps(DONE.to_json() | {"status": "finished"}), '{"status": "do'],
)
def test_an_invalid_record_is_logged_once_and_counts_as_not_done(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = folder(tmp_path)
    run.keep(DONE)
    path = run.record_path(TRIAL)
    path.write_text(text)
    with caplog.at_level(logging.WARNING):
        assert run.find(TRIAL) is None and run.record(TRIAL) is None
    (warning,) = caplog.messages
    assert str(path) in warning and "counts as not done" in warning and "\n" not in warning


def test_a_record_holds_until_a_file_that_it_rests_on_changes(tmp_path: Path) -> None:
    for name in ("trained.jsonl", "asked.csv", "later.jsonl"):
        (tmp_path / name).write_text("one")
    own = {"prompt": "q", "response": "a"}
    evaluate = copy.deepcopy(LEAST["evaluate"])
    evaluate["red_team"].append({"name": "asked", "path": str(tmp_path / "asked.csv"), "prompt": "q"})  # type: ignore[index]
    section = {"arms": {"scale": [{"scale": {"factor": 0.5}}]}, "evaluate": evaluate, "storage": str(tmp_path)}
    section["finetune"] = {"data": [{"name": "trained", "path": str(tmp_path / "trained.jsonl")} | own]}
    section["drift"] = {"generations": [{"name": "later", "path": str(tmp_path / "later.jsonl")} | own]}
    sweep = Sweep.model_validate(LEAST | section)
    trial = Trial("scale", {}, (("scale", {"factor": 0.5}),), seed=0)
    generation = replace(trial, split=DRIFT, generation=Generation((0,), 0, "continue", "reuse"))
    for one in (trial, generation):
        RunFolder(sweep).keep(TrialRecord.of(one, "done"))
        assert RunFolder(sweep).find(one)
    (tmp_path / "later.jsonl").write_text("two")
    assert RunFolder(sweep).find(trial) and RunFolder(sweep).find(generation) is None
    for name in ("trained.jsonl", "asked.csv"):
        (tmp_path / name).write_text("two")
        assert RunFolder(sweep).find(trial) is None
        RunFolder(sweep).keep(TrialRecord.of(trial, "done"))


def documented() -> str:
    """Returns the table of columns, generated from the docstrings of the record."""
    (record,) = ast.parse(inspect.getsource(TrialRecord)).body
    assert isinstance(record, ast.ClassDef)
    lines = ["| column | type | meaning |", "|---|---|---|"]
    for place, node in enumerate(record.body):
        if not isinstance(node, ast.AnnAssign) or ast.unparse(node.target) in (*NOT_IN_THE_TABLE, "rates"):
            continue
        following = record.body[place + 1]
        assert isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant), "a field has a docstring"
        kind = ast.unparse(node.annotation).replace("Status", "str").removesuffix(" | None")
        lines.append(f"| `{ast.unparse(node.target)}` | {kind} | {following.value.value} |")
    return "\n".join(lines)


def test_the_docs_list_the_columns_that_a_record_has() -> None:
    assert documented() in DOCS.read_text(encoding="utf-8"), f"docs/trials.md must contain:\n{documented()}"
