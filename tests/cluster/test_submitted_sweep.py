"""Submitted sweeps: a stopped or killed job leaves no processes and changes no result, and secrets never leak."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest
import requests
from head_node import RAY, TOKEN, Head, head_node, with_token
from small_sweep import ONE_ARM, PATIENCE, SECRET, comparable, offline, stages, write_sweep

from safecomm.storage.names import LINEAGE

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.slow, pytest.mark.faults]

ROOT = Path(__file__).parents[2]
LAPTOPS = {"HF_TOKEN": "the-laptops-hub-token-0123456789", "OPENAI_API_KEY": "the-laptops-judge-key-0123456789"}
"""Secrets where the sweep is submitted; the cluster has one of its own for W&B."""
END_SECONDS = 45.0
"""Time in which everything of a job that ended must be gone."""


@pytest.fixture(scope="module")
def checkout(lab: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean checkout with a small sweep in it."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "safecomm", folder / "safecomm", ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".gitignore", ".rayignore", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    write_sweep(folder, lab, ONE_ARM)
    return folder


@pytest.fixture(scope="module")
def head(checkout: Path) -> Iterator[Head]:
    with head_node(offline(**with_token(checkout.parent))) as node:
        yield node


@pytest.fixture(scope="module")
def environment(checkout: Path) -> dict[str, str]:
    """The laptop's."""
    return offline(**with_token(checkout.parent), **LAPTOPS)


class Submission:
    """`safecomm submit` as somebody runs it in a checkout."""

    def __init__(self, checkout: Path, head: Head, environment: dict[str, str]):
        self._log = checkout.parent / f"submit-{time.monotonic_ns()}.log"
        command = [sys.executable, "-m", "safecomm", "submit", "small.yaml", "--address", head.address]
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                env=environment,
                cwd=checkout,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in jobs of the background
            )

    @property
    def said(self) -> str:
        return self._log.read_text()

    def wait_until(self, reached: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not reached():
            assert self.process.poll() is None and time.monotonic() < deadline, self.said
            time.sleep(0.2)

    def line(self, name: str) -> str:
        self.wait_until(lambda: re.search(rf"^{name}: .*\n", self.said, re.M))
        found = re.search(rf"^{name}: *(.*)$", self.said, re.M)
        assert found
        return found[1]

    @property
    def job(self) -> str:
        return self.line("job").split()[0]


def left_of(head: Head, job: str) -> list[str]:
    """Returns what still runs: of the cluster's workers, and of the driver's own processes."""
    left = list(head.processes().values())
    for process in psutil.process_iter():
        try:
            if any(job in value for value in process.environ().values()):
                left.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return left


def left_at_last(head: Head, job: str) -> list[str]:
    """Returns what still runs of a job once it has had the time to end."""
    deadline = time.monotonic() + END_SECONDS
    while (left := left_of(head, job)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return left


@pytest.fixture(scope="module")
def killed(checkout: Path, head: Head, environment: dict[str, str]) -> str:
    """The job whose driver was killed outright while its fine-tune ran and its engines started."""
    submission = Submission(checkout, head, environment)
    submission.wait_until(lambda: list(checkout.glob("runs/store/scratch/finetune-*-checkpoints")))
    submission.wait_until(lambda: any("ServeReplica" in name for name in head.processes().values()))
    for process in psutil.process_iter(["cmdline"]):
        if "safecomm run small.yaml" in " ".join(process.info["cmdline"] or []):
            os.kill(process.pid, signal.SIGKILL)
    assert submission.process.wait(timeout=60) not in (0, None)
    return submission.job


@pytest.fixture(scope="module")
def stopped(killed: str, checkout: Path, head: Head, environment: dict[str, str]) -> Submission:
    """The job that was stopped in the middle of its search, as its own output says how."""
    assert left_at_last(head, killed) == []
    submission = Submission(checkout, head, environment)
    submission.wait_until(lambda: "evaluation" in submission.said)
    subprocess.run([RAY, *submission.line("to stop").split()[1:]], env=environment, check=True, timeout=120)
    return submission


@pytest.fixture(scope="module")
def finished(stopped: Submission, checkout: Path, head: Head, environment: dict[str, str]) -> Submission:
    assert left_at_last(head, stopped.job) == []
    before = stages(checkout / "runs")
    submission = Submission(checkout, head, environment)
    assert submission.process.wait(timeout=PATIENCE) == 0, submission.said
    assert before and before == {stage: stages(checkout / "runs")[stage] for stage in before}
    return submission


def test_a_job_whose_driver_is_killed_leaves_no_process_and_no_engine(killed: str, head: Head) -> None:
    assert left_at_last(head, killed) == []


def test_a_stopped_job_says_so_and_leaves_no_process(stopped: Submission, head: Head) -> None:
    assert stopped.process.wait(timeout=90) == 130
    assert "run the same command again to resume" in stopped.said
    assert left_at_last(head, stopped.job) == []


def test_resubmitted_sweep_resumes_and_reuses_the_store(
    finished: Submission, checkout: Path, head: Head, environment: dict[str, str]
) -> None:
    assert "every arm's best point" in finished.said
    made = stages(checkout / "runs")
    again = Submission(checkout, head, environment)
    assert again.process.wait(timeout=PATIENCE) == 0, again.said
    assert "started" not in again.said and stages(checkout / "runs") == made


def test_killed_and_stopped_jobs_change_no_result(
    finished: Submission, checkout: Path, undisturbed: pd.DataFrame
) -> None:
    pd.testing.assert_frame_equal(comparable(checkout / "runs" / "small" / "trials.parquet"), undisturbed)


def test_resumed_jobs_train_and_ask_nothing_twice(finished: Submission, checkout: Path) -> None:
    store = checkout / "runs" / "store"
    assert len(list(store.glob(f"finetune/*/{LINEAGE}"))) == 1
    answers = list((store / "responses").iterdir())
    for folder in answers:
        asked = pd.concat([pd.read_parquet(part)["question_id"] for part in folder.glob("*.parquet")])
        assert asked.is_unique and len(asked)
    assert answers


def test_submit_prints_where_to_look_and_missing_secrets(finished: Submission, checkout: Path) -> None:
    assert (checkout / "runs" / "small" / "report.html").is_file()
    assert finished.line("report") == str(checkout / "runs" / "small" / "report.html")
    assert list(Path("/").glob(finished.line("trials' logs").removeprefix("tail -f /")))
    for name in LAPTOPS:
        assert f"{name}: is not set on" in finished.said
    assert "WANDB_API_KEY: is not set" not in finished.said


def test_no_secret_is_in_the_jobs_api_the_logs_the_upload_or_the_run(
    finished: Submission, checkout: Path, head: Head
) -> None:
    secrets = [SECRET, *LAPTOPS.values()]
    header = {"Authorization": f"Bearer {TOKEN}"}
    for place in ("api/jobs/", f"api/jobs/{finished.job}", f"api/jobs/{finished.job}/logs", "logical/actors"):
        answer = requests.get(f"{head.address}/{place}", headers=header, timeout=30)
        assert answer.ok, place
        assert not [secret for secret in secrets if secret in json.dumps(answer.json())], place
    files = [path for root in (head.folder, checkout) for path in root.rglob("*") if path.is_file()]
    assert any(path.name == f"job-driver-{finished.job}.log" for path in files)
    for path in files:
        content = path.read_bytes()
        assert not [secret for secret in secrets if secret.encode() in content], path
    assert not [secret for secret in secrets if secret in finished.said]


def test_ctrl_c_keeps_the_job_running_and_prints_how_to_stop_it(
    finished: Submission, checkout: Path, head: Head, environment: dict[str, str]
) -> None:
    shutil.rmtree(checkout / "runs" / "small")
    submission = Submission(checkout, head, environment)
    submission.wait_until(lambda: "Running entrypoint" in submission.said)
    submission.process.send_signal(signal.SIGINT)
    assert submission.process.wait(timeout=30) == 130
    assert (
        f"The job keeps running; to stop it: ray job stop --address {head.address} {submission.job}" in submission.said
    )
    job = requests.get(
        f"{head.address}/api/jobs/{submission.job}", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30
    ).json()
    assert job["status"] == "RUNNING"
    subprocess.run([RAY, *submission.line("to stop").split()[1:]], env=environment, check=True, timeout=120)
    assert left_at_last(head, submission.job) == []
