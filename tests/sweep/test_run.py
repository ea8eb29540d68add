"""A finished sweep is republished from its records without Ray; one that failed reports the error."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from small_sweep import LEAST

from safecomm.errors import SafecommError
from safecomm.search.arms import Trial
from safecomm.search.equivalence import EquivalentPoints
from safecomm.search.fine_tunes import fine_tunes
from safecomm.search.profile_cache import ProfileCache
from safecomm.search.record import TrialRecord
from safecomm.search.run_folder import RunFolder
from safecomm.search.search_queue import SearchQueue
from safecomm.spec import Sweep
from safecomm.statistics.metrics import Rate, rate
from safecomm.storage.names import ACTIVITY, JOURNAL, MODELS, PARETO, PLAN, REPORT, SWEEP, TRIALS
from safecomm.storage.store import Store, write_json
from safecomm.sweep.publish import publish, report_points, unpublished
from safecomm.sweep.run import run_sweep, write_sweep

ARMS = {"scaled": [{"scale": {"factor": {"grid": [0.2, 0.8]}}}]}
OTHER_MODEL = {"base": "lab://base", "aligned": "lab://base"}
NO_TEXT = {"adapter": "", "adapter_path": "", "finetune": "f", "profile": ""}


def sweep(storage: Path) -> Sweep:
    return Sweep.model_validate(LEAST | {"arms": ARMS, "storage": str(storage), "tracking": {"wandb": None}})


def done(trial: Trial) -> TrialRecord:
    """Less of the update is safer and less accurate."""
    kept = 0 if trial.arm == "original" else round(50 * float(trial.point.get("scale.factor", 1.0)))
    rates: dict[str, Rate] = {}
    for metric, hits in (("asr", kept), ("accuracy", 40 + kept), ("over_refusal", 5)):
        rates |= {metric: rate(hits, 100, 100), f"{metric}/lab": rate(hits, 100, 100)}
    evaluation = f"{trial.arm}-{trial.id}-{trial.split}"
    known = {"reason": "", "share": 1.0, "data": "lab-telecom", **NO_TEXT, "evaluation": evaluation, "seconds": 1.0}
    return TrialRecord.of(trial, "done", **known, rates=rates, log="log")


def queue_of(made: Sweep, folder: RunFolder) -> SearchQueue:
    return SearchQueue(made, folder.find, folder.path / JOURNAL, EquivalentPoints(made, ProfileCache(made)))


def test_an_adapter_that_the_store_has_lost_is_made_again(finished: Sweep) -> None:
    folder = RunFolder(finished)
    searched = queue_of(finished, folder).trials
    assert unpublished(finished, folder, searched) == []
    trial = next(one for one in report_points(finished, folder, searched) if one.arm == "scaled")
    lost = Store.of(finished.storage).folder("realign", "0" * 8)
    record = folder.record(trial)
    assert record
    folder.keep(replace(record, adapter_path=str(lost)))
    assert unpublished(finished, folder, searched) == [trial]


@pytest.mark.parametrize(("change", "kept"), [({"seeds": 2}, True), ({"model": OTHER_MODEL}, False)])
def test_results_of_another_model_are_not_left_beside_the_sweep_that_follows(
    finished: Sweep, change: dict[str, Any], kept: bool
) -> None:
    folder = RunFolder(finished)
    run_sweep(finished, None, Console(quiet=True))
    assert (folder.path / TRIALS).exists()
    write_sweep(Sweep.model_validate(finished.resolved() | change), folder)
    assert (folder.path / TRIALS).exists() == (folder.path / REPORT).exists() == kept


def _with(lab: dict[str, Path], folder: Path, name: str, content: str | None) -> str:
    """Returns a copy of the aligned model with another file."""
    shutil.copytree(lab["aligned"], folder)
    (folder / name).unlink(missing_ok=True)
    if content is not None:
        (folder / name).write_text(content)
    return str(folder)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", "{}", "model.aligned: .* has no model_type"),
        ("tokenizer.json", "{}", "model.aligned: the tokenizer of"),
        ("chat_template.jinja", "{{ raise_exception('no') }}", "the chat template of .* rejects"),
        ("model.safetensors", None, "model.aligned: .* has no .*safetensors"),
    ],
)
def test_a_run_that_fails_its_checks_leaves_a_finished_run_as_it_is(
    finished: Sweep, lab: dict[str, Path], tmp_path: Path, name: str, content: str | None, said: str
) -> None:
    """Else `export` would name the other model, and the next run would pin it."""
    run = run_sweep(finished, None, Console(quiet=True))
    for file in (MODELS, PLAN):
        write_json(run / file, {})
    before = {
        path: path.read_bytes() for path in run.rglob("*") if path.is_file() and not path.name.startswith(".lock")
    }
    aligned = _with(lab, tmp_path / "other", name, content)
    sweep = finished.resolved() | {"model": {"base": "lab://base", "aligned": aligned}}
    other = Sweep.model_validate(sweep | {"evaluate": sweep["evaluate"] | {"max_model_len": 512, "max_new_tokens": 8}})
    with pytest.raises(SafecommError, match=said):
        run_sweep(other, None, Console(quiet=True))
    changed = {path.name for path, content in before.items() if path.read_bytes() != content}
    assert changed <= {ACTIVITY} and not {MODELS, PLAN, SWEEP, TRIALS} & changed


@pytest.fixture
def finished(tmp_path: Path) -> Sweep:
    """A sweep with a record of every trial."""
    made = sweep(tmp_path)
    folder = RunFolder(made)
    write_json(folder.path / SWEEP, made.resolved())
    for trial in fine_tunes(made, EquivalentPoints(made, ProfileCache(made))):
        folder.keep(TrialRecord.of(trial, "done", finetune="f", profile="", seconds=1.0))
    queue = queue_of(made, folder)
    for trial in queue.trials:
        folder.keep(done(trial))
    for trial in report_points(made, folder, queue.trials):
        folder.keep(done(trial))
    return made


def test_finished_sweep_is_republished_without_ray(finished: Sweep) -> None:
    run = run_sweep(finished, None, Console(quiet=True))
    assert not (run / PLAN).exists(), "what is to be made is planned, on a cluster"
    assert all((run / name).is_file() for name in (TRIALS, PARETO, REPORT))
    table = pd.read_parquet(run / TRIALS)
    assert table["arm"].value_counts().to_dict() == {"scaled": 2 + 1, "original": 2, "undefended": 2}
    assert table.loc[table["point"] == '{"scale.factor": 0.2}', "asr"].unique() == [0.1]


def test_the_best_point_of_each_arm_and_the_references_are_measured_on_the_report_split(finished: Sweep) -> None:
    folder = RunFolder(finished)
    chosen = report_points(finished, folder, queue_of(finished, folder).trials)
    assert {trial.split for trial in chosen} == {"report"}
    assert [trial.arm for trial in chosen] == ["original", "undefended", "scaled"]
    assert report_points(finished, folder, []) == []


def test_table_has_all_columns_even_for_failed_trials(finished: Sweep) -> None:
    folder = RunFolder(finished)
    queue = queue_of(finished, folder)
    publish(finished, folder, queue, [])
    whole = list(pd.read_parquet(folder.path / TRIALS))
    head = ["trial", "arm", "point", "seed", "split", "error", "status", "reason", "share", "data", "adapter"]
    head += ["adapter_path", "finetune", "profile", "evaluation", "seconds", "asr", "asr_low", "asr_high", "asr_n"]
    assert whole[: len(head)] == head and whole[-5:] == [
        "log",
        "refusal_rise",
        "refusal_rise_low",
        "refusal_rise_high",
        "names",
    ]
    folder.keep(TrialRecord.of(queue.trials[0], "failed", error="no memory", traceback="...", log="log"))
    publish(finished, folder, queue, [])
    table = pd.read_parquet(folder.path / TRIALS)
    assert set(table) == set(whole) and list(table)[:8] == [*head[:7], "log"]
    (failed,) = table[table["status"] == "failed"].to_dict("records")
    assert failed["error"] == "no memory" and pd.isna(failed["asr"]) and failed["evaluation"] == ""


def test_sweep_without_successful_trials_reports_the_first_error(finished: Sweep) -> None:
    folder = RunFolder(finished)
    queue = queue_of(finished, folder)
    for trial in queue.trials:
        folder.keep(TrialRecord.of(trial, "failed", error=f"no memory for {trial.arm}", log="stderr"))
    with pytest.raises(
        SafecommError, match=r"all trials failed; the first one with: no memory for original \(log: stderr\)"
    ):
        publish(finished, folder, queue, [])
    assert json.loads(pd.read_parquet(folder.path / TRIALS)["names"].iloc[0]) == [{}]
