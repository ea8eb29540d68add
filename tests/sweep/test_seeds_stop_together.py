"""Points with several seeds stop early, all seeds of a point together, and an interrupted search decides the same.

The sweep is simulated: Ray's processes, the store, the records and the decisions are real.
"""

import copy
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from small_sweep import LEAST, PATIENCE, comparable, offline

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.cluster]


def run(sweep_file: Path) -> pd.DataFrame:
    command = [sys.executable, "-m", "safecomm", "run", str(sweep_file)]
    done = subprocess.run(command, env=offline(), capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return comparable(sweep_file.parent / "runs" / "least" / "trials.parquet")


def test_all_seeds_of_a_point_stop_together_and_a_lost_one_is_compared_again(tmp_path: Path) -> None:
    sweep = copy.deepcopy(LEAST) | {
        "arms": {"scaled": [{"scale": {"factor": {"grid": [0.02, 0.3, 0.6, 0.9]}}}]},
        "seeds": 2,
        "search": {"target_asr": 0.1, "racing": {"rungs": [0.25, 0.5]}},
        "cluster": {"concurrent_trials": 1},
        "simulation": {"clock": 1e9},
        "tracking": {"wandb": None},
        "storage": str(tmp_path / "runs"),
    }
    sweep["evaluate"] |= {"engine": "simulated", "max_new_tokens": 12, "max_model_len": 300}
    path = tmp_path / "seeds.yaml"
    path.write_text(yaml.safe_dump(sweep))

    trials = run(path)
    searched = trials[(trials["split"] == "search") & (trials["arm"] == "scaled")]
    by_point = searched.groupby("point")[["status", "share"]].agg(set)
    assert len(by_point) == 4 and all(len(shares) == 1 for shares in by_point["share"]), searched
    stopped = searched[searched["status"] == "stopped"]
    assert not stopped.empty and set(stopped["compared_seeds"]) == {2}

    lost = stopped.iloc[0]
    (tmp_path / "runs" / "least" / "trials" / f"scaled-{lost['trial']}-search.json").unlink()
    pd.testing.assert_frame_equal(run(path), trials)
