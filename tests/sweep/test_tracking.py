"""W&B failures (network, key, disk) cost one warning and never the sweep."""

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

KEY = "0123456789abcdef" * 3
SWEEP = """
import sys, types
from pathlib import Path
import pandas as pd
from safecomm.spec import Sweep
from safecomm.search.arms import Trial
from safecomm.search.record import TrialRecord
from safecomm.search.run_folder import RunFolder
from safecomm.statistics.metrics import Rate
from safecomm.sweep import tracking
from safecomm.sweep.tracked_results import log_sweep
from safecomm.sweep.tracking import WandbTrials

tracking.INIT_SECONDS = tracking.FINISH_SECONDS = 5.0
storage = Path(sys.argv[1])
sweep = Sweep.model_validate({
    "name": "tracked", "model": {"base": "lab://base", "aligned": "lab://aligned"}, "arms": {},
    "finetune": {"data": ["lab-telecom"]}, "evaluate": {"red_team": ["lab-harm"], "task": ["lab-telecom"]},
    "tracking": {"wandb": {"project": "p"}}, "storage": str(storage),
})
folder = RunFolder(sweep)
folder.path.mkdir(parents=True)
evaluation = storage / "store" / "evaluation" / "key"
evaluation.mkdir(parents=True)
rows = {"kind": "task", "benchmark": "b", "prompt_id": "1", "category": "c"}
rows |= {"text": "t" * 99999, "response": "r", "verdict": "v"}
pd.DataFrame([rows]).to_parquet(evaluation / "rows.parquet")
callback = WandbTrials(sweep, folder)
callback.on_trial_error(0, [], types.SimpleNamespace(trial_id="its process died before it started"))
for name in ("one", "two"):
    config = {"trial": {"arm": name, "point": {}, "chain": [], "seed": 0, "split": "search"}}
    trial = types.SimpleNamespace(trial_id=name, config=config, last_result={"status": "done"})
    callback.on_trial_start(0, [], trial)
    if len(sys.argv) > 2:
        with (folder.path / "fill").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1024))
            except OSError:
                pass
    callback.on_trial_result(0, [], trial, {"train/loss": 1.0, "train/step": 1})
    opened = callback._runs[name]
    callback.on_trial_start(0, [], trial)  # as when its process died, and it is tried again
    assert callback._runs[name] is opened, "a server would hold the run's id to be in use"
    rates = {"asr": Rate(0.1, 0.0, 1.0, 10, 0.0)}
    done = TrialRecord.of(Trial.of(config["trial"]), "done", evaluation="key", adapter="", adapter_path="", rates=rates)
    callback.on_trial_result(0, [], trial, done.to_json())
    callback.on_trial_complete(0, [], trial)
callback.on_experiment_end([])
log_sweep(sweep, folder)
print("the sweep ended")
"""


def track(storage: Path, *more: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Tracks a sweep of two trials; its table of trials is missing, as a fault of another kind."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    home = {"HOME": str(storage.parent)}  # where nobody is logged in
    done = subprocess.run(
        [sys.executable, "-c", SWEEP, str(storage), *more],
        env=kept | home | environment,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0 and "the sweep ended" in done.stdout, done.stderr
    assert KEY not in done.stdout + done.stderr
    return done


def warnings(done: "subprocess.CompletedProcess[str]") -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith("W&B failed")]


def offline_runs(storage: Path) -> int:
    return len(list(storage.glob("tracked/wandb/offline-run-*/run-*.wandb")))


class Refuses(http.server.BaseHTTPRequestHandler):
    """A server that knows no key."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        status, answer = self.answer(body)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def answer(self, asked: bytes) -> tuple[int, object]:
        return 401, {"errors": [{"message": "user is not logged in"}]}

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class GoesAway(Refuses):
    """A server that opens one run, and is heard of no more."""

    has_opened = False

    def answer(self, asked: bytes) -> tuple[int, object]:
        if GoesAway.has_opened:
            raise ConnectionAbortedError
        GoesAway.has_opened = b"upsertBucket" in asked
        project = {"id": "p", "name": "p", "entity": {"id": "e", "name": "e"}}
        bucket = {"id": "x", "name": "x", "displayName": "x", "config": "{}", "historyLineCount": 0, "project": project}
        viewer = {"id": "1", "entity": "e", "username": "u", "flags": "{}", "teams": {"edges": []}}
        return 200, {"data": {"upsertBucket": {"bucket": bucket, "inserted": True}, "viewer": viewer, "model": None}}


@contextmanager
def serving(handler: type[Refuses]) -> Iterator[str]:
    """Runs a server on a port of loopback."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.waits
def test_unreachable_server_falls_back_to_offline_after_one_timeout(tmp_path: Path) -> None:
    storage = tmp_path / "runs"
    done = track(storage, WANDB_API_KEY=KEY, WANDB_BASE_URL="http://127.0.0.1:9")
    first, second = warnings(done)
    assert "continues offline" in first and "connection refused" in first
    assert "trials.parquet" in second and "is disabled" in second
    assert offline_runs(storage) == 3
    assert not [path for path in storage.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


@pytest.mark.waits
def test_wrong_key_falls_back_to_offline_and_is_never_shown(tmp_path: Path) -> None:
    with serving(Refuses) as url:
        done = track(tmp_path / "runs", WANDB_API_KEY=KEY, WANDB_BASE_URL=url)
    assert "continues offline" in warnings(done)[0] and "401" in warnings(done)[0]
    assert offline_runs(tmp_path / "runs") == 3


@pytest.mark.waits
def test_lost_server_falls_back_to_offline(tmp_path: Path) -> None:
    with serving(GoesAway) as url:
        done = track(tmp_path / "runs", WANDB_API_KEY=KEY, WANDB_BASE_URL=url)
    assert GoesAway.has_opened
    assert "continues offline" in warnings(done)[0]
    assert offline_runs(tmp_path / "runs") == 2


@pytest.mark.waits
def test_malformed_key_is_never_shown(tmp_path: Path) -> None:
    done = track(tmp_path / "runs", WANDB_API_KEY="tooshort", WANDB_BASE_URL="http://127.0.0.1:9")
    assert "continues offline" in warnings(done)[0]
    assert "tooshort" not in done.stdout + done.stderr
    assert offline_runs(tmp_path / "runs") == 3


@pytest.mark.waits
def test_full_disk_disables_tracking_with_one_warning(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        done = track(disk / "runs", "fill", WANDB_MODE="offline")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    (warning,) = warnings(done)
    assert "No space left" in warning and "is disabled" in warning


@pytest.mark.waits
def test_unknown_wandb_mode_warns_and_falls_back_to_offline(tmp_path: Path) -> None:
    done = track(tmp_path / "runs", WANDB_MODE="nonsense")
    assert "nonsense" in warnings(done)[0] and "continues offline" in warnings(done)[0]
    assert offline_runs(tmp_path / "runs") == 3
