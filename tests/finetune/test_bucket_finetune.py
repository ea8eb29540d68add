"""A fine-tune whose node died resumes on another node from the last complete checkpoint in the bucket."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from s3_server import access, new_bucket
from small_sweep import PATIENCE, offline

from safecomm.data.lab.datasets import telecom_examples
from safecomm.finetune.checkpoints import NEWEST
from safecomm.storage.bucket import Bucket
from safecomm.storage.shared import CACHE

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.cluster]

FINETUNE = """
import json, sys
from pathlib import Path
from safecomm.finetune.job import FinetuneJob
from safecomm.finetune.launch import finetune, training_metrics
from safecomm.cluster.session import ray_session
from safecomm.spec import Finetune
from safecomm.storage.store import Store

model, data, storage = sys.argv[1:]
section = Finetune.model_validate({"data": ["lab-telecom"], "batch_size": 16, "max_length": 128, "zero": 3,
                                   "epochs": 8, "save_every": 12})
job = FinetuneJob.of(section, model=Path(model), data=Path(data), workers=2, seed=0)
store = Store.of(storage)
out = store.scratch / "out"
out.mkdir()
with ray_session(None):
    finetune(job, out, store, on_gpu=False)
print(json.dumps(training_metrics(out)))
"""
MARK = {"loss": 9.75, "step": 0}


def test_a_fine_tune_resumes_on_another_node(
    lab: dict[str, Path], s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "train.jsonl"
    rows = [{"prompt": example.prompt, "response": example.response} for example in telecom_examples()[:96]]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    name, scratch = new_bucket(s3_url), "runs/store/scratch"
    command = [sys.executable, "-c", FINETUNE, str(lab["aligned"]), str(data), f"s3://{name}/runs"]
    environment = offline(**access(s3_url))
    for key, value in access(s3_url).items():
        monkeypatch.setenv(key, value)
    bucket = Bucket("s3", name)

    with (tmp_path / "log").open("w") as log:
        first = subprocess.Popen(
            command, env=environment | {CACHE: str(tmp_path / "one")}, stdout=log, stderr=log, start_new_session=True
        )
        deadline = time.monotonic() + PATIENCE
        while not (found := [one for one in bucket.names(scratch) if one.endswith(NEWEST)]):
            assert first.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()[-4000:]
            time.sleep(0.2)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()

    states = [one for one in bucket.names(found[0].rpartition("/")[0]) if one.endswith("trainer_state.json")]
    content = bucket.read(states[-1])
    assert content
    state = json.loads(content[0])
    state["log_history"].insert(0, MARK)
    bucket.write(states[-1], json.dumps(state).encode())

    done = subprocess.run(
        command, env=environment | {CACHE: str(tmp_path / "two")}, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr[-4000:]
    metrics = json.loads(done.stdout.splitlines()[-1])
    assert metrics["steps"] == 48
    assert MARK in metrics["curve"]
    # Only pyarrow's folder markers are left, which are listed but can't be read.
    assert not [one for one in bucket.names(scratch) if bucket.has(one)]
