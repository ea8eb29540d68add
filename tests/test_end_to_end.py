"""A small sweep as a submitted job, and then again on the command line.

It uses real Ray Tune, Ray Train with DeepSpeed ZeRO-3 on two ranks, Serve with vLLM, Ray Data, and W&B offline; only
the model is small.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from head_node import RAY, head_node, with_token
from small_sweep import PATIENCE, SECRET, offline, stages, write_sweep

from safecomm.storage.names import LINEAGE

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.slow]

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def sweep_file(lab: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("sweep"), lab)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return offline(**with_token(tmp_path_factory.mktemp("token")))


@pytest.fixture(scope="module")
def head(environment: dict[str, str]) -> Iterator[str]:
    """The address of a head node's dashboard."""
    with head_node(environment) as node:
        yield node.address


@pytest.fixture(scope="module")
def finished(head: str, sweep_file: Path, environment: dict[str, str]) -> str:
    """What the submitted job with the sweep printed."""
    command = [RAY, "job", "submit", "--address", head, "--working-dir", "."]
    command += ["--", "python", "-m", "safecomm", "run", str(sweep_file)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def run(finished: str, sweep_file: Path) -> Path:
    return sweep_file.parent / "runs" / "small"


def test_the_job_prints_a_table_with_every_arm(finished: str) -> None:
    table = finished[finished.index("every arm's best point") :]
    for arm in ("original", "undefended", "safe_instruct", "safe_lora", "safe_merge"):
        assert arm in table
    assert "n=" in finished


def test_every_shared_stage_ran_once(run: Path) -> None:
    made = [json.loads(path.read_text()) for path in run.parent.glob(f"store/finetune/*/{LINEAGE}")]
    assert len(made) == 3  # telecom alone, telecom with safety examples, safety alone


def test_every_trial_is_in_the_table_on_its_splits(run: Path) -> None:
    trials = pd.read_parquet(run / "trials.parquet")
    assert set(trials["status"]) <= {"done", "stopped"}, trials["error"].tolist()
    search = trials[trials["split"] == "search"]
    assert search["arm"].value_counts().to_dict() == {
        "original": 1,
        "undefended": 1,
        "safe_instruct": 1,
        "safe_lora": 2,
        "safe_merge": 2,
    }
    report = trials[trials["split"] == "report"]
    assert set(report["arm"]) == set(search["arm"])
    for metric in ("asr", "accuracy", "over_refusal", "asr@refusal", "asr/lab-harm"):
        assert ((trials[f"{metric}_low"] <= trials[metric]) & (trials[metric] <= trials[f"{metric}_high"])).all()
        assert (trials[f"{metric}_n"] > 0).all()
    assert not set(search["evaluation"]) & set(report["evaluation"])


def test_the_run_folder_is_complete_and_its_sweep_runs_again(run: Path) -> None:
    from safecomm.spec import read_sweep

    for name in ("sweep.json", "plan.json", "judges.json", "trials.parquet", "pareto.json", "report.html"):
        assert (run / name).is_file(), name
    assert read_sweep(run / "sweep.json").name == "small"
    assert json.loads((run / "pareto.json").read_text())["recommended"]["arm"]


def test_wandb_has_an_offline_run_for_every_trial_and_one_for_the_sweep(run: Path) -> None:
    folders = list((run / "wandb").glob("offline-run-*"))
    trials = pd.read_parquet(run / "trials.parquet")
    fine_tunes, sweep = 3, 1
    written = {folder.name.rpartition("-")[2] for folder in folders if list(folder.glob("run-*.wandb"))}
    assert len(written) == len(trials) + fine_tunes + sweep
    assert any(list(folder.glob("files/media/table/samples*.json")) for folder in folders)


def test_no_secret_is_in_any_file_of_the_run(run: Path, finished: str) -> None:
    assert SECRET not in finished
    for path in run.parent.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path


def test_rerun_computes_and_starts_nothing(run: Path, sweep_file: Path, environment: dict[str, str]) -> None:
    before = stages(run.parent)
    command = [sys.executable, "-m", "safecomm", "run", str(sweep_file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "safe_merge" in done.stdout
    assert stages(run.parent) == before
    assert "started" not in done.stdout


def test_evaluate_reuses_the_sweeps_answers(
    run: Path, sweep_file: Path, lab: dict[str, Path], environment: dict[str, str], tmp_path: Path
) -> None:
    trials = pd.read_parquet(run / "trials.parquet")
    (best,) = trials[(trials["arm"] == "undefended") & (trials["split"] == "report")].to_dict("records")
    options = {"model": lab["aligned"], "adapter": best["adapter_path"], "storage": run.parent}
    options |= {"max-new-tokens": 12, "max-model-len": 128}
    command = [sys.executable, "-m", "safecomm", "evaluate", "--judge=compliance", "--judge=refusal"]
    command += [f"--{name}={value}" for name, value in options.items()]

    def evaluate(benchmark: str, limit: int) -> dict[str, float]:
        out = tmp_path / benchmark
        more = [f"--benchmark={benchmark}", f"--limit={limit}", f"--out={out}"]
        done = subprocess.run([*command, *more], env=environment, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        assert f"0 of {2 * limit} answers are missing" in done.stdout
        (_, tuned) = json.loads((out / "results.json").read_text())["models"]
        return {name: rate["n"] for name, rate in tuned["rates"].items()}

    assert evaluate("lab-harm", 60)["asr/lab-harm"] > best["asr/lab-harm_n"]  # both splits of the sweep
    evaluate("lab-borderline", 40)
    more = ["--benchmark=lab-telecom", "--limit=40", f"--out={tmp_path / 'json'}", "--json"]
    done = subprocess.run([*command, *more], env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["models"] == json.loads((tmp_path / "json" / "results.json").read_text())["models"]
