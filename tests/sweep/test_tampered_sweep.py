"""Further training waits until the engines of a phased sweep have stopped; a rerun does nothing again.

The sweep is simulated: only Ray's processes, the store and the records are real. Its harmful prompts are conversations.
"""

import copy
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from small_sweep import LEAST, PATIENCE, offline, stages

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.cluster]


@pytest.fixture(scope="module")
def sweep_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phased")
    sweep = copy.deepcopy(LEAST) | {
        "arms": {},
        "tamper": {
            "data": {"name": "lab-questions", "limit": 40},
            "harmful": {"name": "lab-compliance", "limit": 10},
            "harmful_after_data": True,
            "steps": [1, 3],
            "learning_rate": [1e-4, 1e-3],
            "max_accuracy_drop": 0.5,
        },
        "search": {"racing": False},
        "cluster": {"phased": True},
        "simulation": {"clock": 1e9},
        "storage": str(folder / "runs"),
    }
    sweep["evaluate"] |= {"engine": "simulated", "max_new_tokens": 12, "max_model_len": 300}
    conversations = {"name": "lab-harm", "limit": 60, "attack": {"multi_turn": {"turns": 2}}}
    sweep["evaluate"] |= {"red_team": [conversations], "attacker": {"model": "lab://aligned"}}
    path = folder / "phased.yaml"
    path.write_text(yaml.safe_dump(sweep))
    return path


def run(sweep_file: Path) -> str:
    command = [sys.executable, "-m", "safecomm", "run", str(sweep_file)]
    done = subprocess.run(command, env=offline(), capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def measured(sweep_file: Path) -> set[tuple[str, str, float, int]]:
    trials = pd.read_parquet(sweep_file.parent / "runs" / "least" / "trials.parquet")
    assert set(trials["status"]) == {"done"}, trials["error"].tolist()
    further = trials[trials["split"] == "tamper"]
    assert further["accuracy"].notna().all()
    return {(row["arm"], row["tamper"], row["learning_rate"], row["steps"]) for _, row in further.iterrows()}


def test_released_adapters_are_trained_between_two_starts_of_the_engines(sweep_file: Path) -> None:
    said = run(sweep_file)
    assert said.count("waiting for the engines of the target fleet") == 2
    curves = ("data", "harmful", "data_then_harmful")
    every = {("undefended", curve, rate, step) for curve in curves for rate in (1e-4, 1e-3) for step in (1, 3)}
    assert measured(sweep_file) == every
    logged = {path.parent for path in (sweep_file.parent / "runs" / "least").glob("wandb/offline-run-*/run-*.wandb")}
    searched = reported = 2  # original and undefended
    fine_tune = sweep = 1
    trainings, further = 6, 12
    assert len(logged) == searched + reported + further + fine_tune + trainings + sweep
    before = stages(sweep_file.parent / "runs")
    assert "started" not in run(sweep_file)
    assert stages(sweep_file.parent / "runs") == before
