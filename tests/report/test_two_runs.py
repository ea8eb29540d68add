"""Two runs are compared on the prompts that both asked; only a decided change is called better or worse."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from safecomm.cli import app
from safecomm.judging.coherence import with_coherence
from safecomm.report.run import read_run
from safecomm.report.two_runs import TwoRuns, as_json, compare_runs
from safecomm.statistics.metrics import as_columns, rates

SAFE_INSTRUCT = "05-report"
"""The evaluation of safe_instruct's best point on the report split: 3 of 20 unsafe, 15 of 20 right, 2 of 10 refused."""


@pytest.fixture
def later(run_folder: Path, tmp_path: Path) -> Path:
    """A run like the small one, in another storage."""
    shutil.copytree(run_folder.parent, tmp_path / "later")
    return tmp_path / "later" / "small"


def with_sweep(run: Path, **changes: Any) -> Path:
    saved = json.loads((run / "sweep.json").read_text())
    (run / "sweep.json").write_text(json.dumps(saved | changes))
    return run


def with_verdicts(run: Path, evaluation: str, verdict: str, changed: slice) -> Path:
    """Gives some of an evaluation's harmful prompts, in their order, another verdict."""
    path = run.parent / "store" / "evaluation" / evaluation / "rows.parquet"
    rows = pd.read_parquet(path)
    rows.loc[rows.index[rows["kind"] == "red_team"][changed], "verdict"] = verdict
    rows.to_parquet(path)
    trials = pd.read_parquet(run / "trials.parquet")
    for name, value in as_columns(rates(with_coherence(rows), ["refusal"])).items():
        trials.loc[trials["evaluation"] == evaluation, name] = value
    trials.to_parquet(run / "trials.parquet")
    return run


def without_arm(run: Path, arm: str) -> Path:
    trials = pd.read_parquet(run / "trials.parquet")
    trials[trials["arm"] != arm].to_parquet(run / "trials.parquet")
    return run


def verdicts(found: TwoRuns, metric: str = "asr") -> dict[str, str]:
    return {one.arm: one.verdict for one in found.changes if one.metric == metric}


def test_a_run_does_not_differ_from_itself(run_folder: Path) -> None:
    found = compare_runs(read_run(run_folder), read_run(run_folder))
    assert not found.differences and not found.notes
    assert {one.difference.value for one in found.changes if one.difference} == {0.0}
    assert set(verdicts(found).values()) == {"not decided"} and len(found.changes) == 3 * 4


def test_a_clear_change_is_decided_and_the_other_arms_are_not(run_folder: Path, later: Path) -> None:
    """The arm's 17 safe answers become unsafe."""
    with_verdicts(later, SAFE_INSTRUCT, "unsafe", slice(0, 20))
    before, after = read_run(run_folder), read_run(later)
    found = {one.arm: one for one in compare_runs(before, after).changes if one.metric == "asr"}
    change = found["safe_instruct"]
    assert change.difference is not None and change.difference.value == pytest.approx(17 / 20)
    assert change.difference.low > 0.5 and change.difference.p < 0.001 and change.verdict == "worse"
    assert (change.before.rates["asr"].value, change.after.rates["asr"].value) == pytest.approx((3 / 20, 1.0))
    others = {arm: one.verdict for arm, one in found.items() if arm != "safe_instruct"}
    assert set(others.values()) == {"not decided"}
    assert verdicts(compare_runs(after, before))["safe_instruct"] == "better"
    assert verdicts(compare_runs(before, after), "accuracy")["safe_instruct"] == "not decided"


def test_the_recommended_points_are_compared_if_their_arms_differ(run_folder: Path, later: Path) -> None:
    without_arm(later, "safe_merge")
    found = compare_runs(read_run(run_folder), read_run(later))
    chosen = next(one for one in found.changes if (one.arm, one.metric) == ("(recommended)", "accuracy"))
    assert (chosen.before.arm, chosen.after.arm) == ("safe_merge", "safe_instruct")
    assert chosen.difference is not None and chosen.difference.value == pytest.approx((15 - 11) / 20)


def test_other_prompts_give_no_difference(run_folder: Path, later: Path) -> None:
    path = later.parent / "store" / "evaluation" / SAFE_INSTRUCT / "rows.parquet"
    rows = pd.read_parquet(path)
    rows.assign(prompt_id="new-" + rows["prompt_id"]).to_parquet(path)
    found = {one.arm: one for one in compare_runs(read_run(run_folder), read_run(later)).changes}
    assert found["safe_instruct"].difference is None and found["safe_instruct"].verdict == ""
    assert found["safe_merge"].difference is not None


def test_the_same_cluster_of_other_prompts_is_no_common_prompt(run_folder: Path, later: Path) -> None:
    """Attacks on a prompt, and several wordings of a request, share the cluster of the plain prompt."""
    earlier = later.parent.parent / "earlier" / "small"
    shutil.copytree(run_folder.parent, earlier.parent)
    for run, name in ((earlier, "plain"), (later, "attacked")):
        path = run.parent / "store" / "evaluation" / SAFE_INSTRUCT / "rows.parquet"
        rows = pd.read_parquet(path)
        harmful = rows["kind"] == "red_team"
        rows["cluster"] = rows["prompt_id"].where(harmful, "")
        rows.loc[harmful, "prompt_id"] = name + rows["prompt_id"]
        rows.to_parquet(path)
    found = {
        one.metric: one
        for one in compare_runs(read_run(earlier), read_run(later)).changes
        if one.arm == "safe_instruct"
    }
    assert found["asr"].difference is None and found["accuracy"].difference is not None


def test_runs_without_a_common_arm_or_benchmark_say_so(run_folder: Path, later: Path) -> None:
    trials = pd.read_parquet(later / "trials.parquet")
    named = {name: name.replace("asr/lab-harm", "asr/other") for name in trials}
    trials[trials["split"] == "search"].rename(columns=named).to_parquet(later / "trials.parquet")
    found = compare_runs(read_run(run_folder), read_run(later))
    assert found.notes[-2:] == [
        "Only one run has other: the rates include it, the changes don't.",
        "No arm was measured on the report split in both runs, so there is nothing to compare.",
    ]
    assert not found.changes


def test_settings_models_and_packages_that_differ_are_listed(run_folder: Path, later: Path) -> None:
    earlier = later.parent.parent / "earlier" / "small"
    shutil.copytree(run_folder.parent, earlier.parent)
    arms = json.loads((later / "sweep.json").read_text())["arms"]
    arms["safe_instruct"][0]["safe_instruct"]["ratio"] = {"uniform": [0, 1]}
    arms["lox"] = [{"lox": {"strength": 0.5}}]
    with_sweep(later, name="other", storage="s3://x", seeds=3, arms=arms)
    for run, revision, version in ((earlier, "a" * 40, "5.0"), (later, "b" * 40, "5.1")):
        (run / "models.json").write_text(json.dumps({"lab://base": {"revision": revision, "identity": "i"}}))
        (run / "wandb" / "offline-run-1" / "files").mkdir(parents=True)
        (run / "wandb" / "offline-run-1" / "files" / "requirements.txt").write_text(
            f"torch==2\ntransformers=={version}\n"
        )
    found = compare_runs(read_run(earlier), read_run(later)).differences
    assert {(one.what, one.before, one.after) for one in found} == {
        ("seeds", "1", "3"),
        ("arms.safe_instruct.0.safe_instruct.ratio", "grid 0.01, 0.3", "uniform 0, 1"),
        ("arms.lox", "not set", "lox strength 0.5"),
        ("lab://base", "a" * 12, "b" * 12),
        ("transformers", "5.0", "5.1"),
    }


def test_what_spoils_a_comparison_is_said_first(run_folder: Path, later: Path) -> None:
    """Another judge; an arm of one run alone; settings chosen on the report split, whose rates nothing should test."""
    saved = json.loads((later / "sweep.json").read_text())
    with_sweep(later, evaluate={"judges": ["compliance"]}, search=saved["search"] | {"split": "report"})
    without_arm(later, "safe_merge")
    found = compare_runs(read_run(run_folder), read_run(later))
    flattered, judges, alone = found.notes
    assert flattered.startswith(f"{later}: The settings were chosen on the same prompts") and "optimistic" in flattered
    assert judges == "The judges of harmful answers differ: a change may be theirs, not the model's."
    assert alone == f"Measured on the report split only in {run_folder}: safe_merge."
    assert {one.difference for one in found.changes} == {None}


def test_runs_without_their_answers_are_compared_by_their_rates(run_folder: Path, later: Path) -> None:
    shutil.rmtree(later.parent / "store")
    found = compare_runs(read_run(run_folder), read_run(later))
    assert {one.difference for one in found.changes} == {None}
    assert found.notes[-1].startswith("safe_merge is not tested: ") and "run the sweep again" in found.notes[-1]


def test_the_command_prints_rates_changes_and_json(run_folder: Path, later: Path) -> None:
    with_sweep(with_verdicts(later, SAFE_INSTRUCT, "unsafe", slice(0, 20)), seeds=1, name="second")
    printed = CliRunner(env={"COLUMNS": "150"}).invoke(
        app, ["compare", str(run_folder), str(later)], catch_exceptions=False
    )
    assert printed.exit_code == 0 and "worse" in printed.output
    assert "The sweeps, models and packages are the same" in printed.output
    assert "15.0%" in printed.output and "100.0%" in printed.output
    as_values = CliRunner().invoke(app, ["compare", str(run_folder), str(later), "--json"], catch_exceptions=False)
    assert json.loads(as_values.output) == as_json(compare_runs(read_run(run_folder), read_run(later)))
