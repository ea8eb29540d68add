"""Submits a sweep to a cluster as a Ray job and follows its log.

Secrets are never sent: Ray shows a job's environment to every user who may submit jobs, and logs it. The job receives
only the names of the secrets that are set locally, and reports which of them the nodes lack.
"""

import asyncio
import logging
import os
import shlex
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safecomm.cluster.reachable import ClusterError, check_answers, refused
from safecomm.cluster.upload import pack
from safecomm.errors import StoppedError, UsageError
from safecomm.spec import Sweep
from safecomm.spec.secrets import SECRETS
from safecomm.storage import shared

EXPECTED = "SAFECOMM_EXPECTED"
"""Environment variable with the names of the secrets that are set on the submitting machine."""
STOP_SECONDS = 60
"""Grace period for a stopped job to end its trials and engines; Ray's default is three seconds."""
PAUSE_SECONDS = 2.0
"""Delay before reconnecting to a job's log."""


@dataclass(frozen=True)
class Job:
    """A submitted job."""

    id: str
    address: str
    uploaded: int
    """Bytes."""

    @property
    def page(self) -> str:
        """The job's page on the dashboard."""
        return f"{self.address}/#/jobs/{self.id}"

    def command(self, verb: str) -> str:
        """Returns the `ray job` command with a verb for this job."""
        return f"ray job {verb} --address {self.address} {self.id}"


def run_command(sweep: Path, overrides: Sequence[str], storage: str | None) -> list[str]:
    """Returns the command that runs a sweep on the cluster.

    Raises:
        UsageError: if the sweep file is not in the working directory, which is what gets uploaded.
    """
    here = Path.cwd()
    if not sweep.resolve().is_relative_to(here):
        raise UsageError(f"{sweep}: is outside {here}, the directory that is uploaded; submit from a parent folder")
    options = [part for override in overrides for part in ("--set", override)]
    options += ["--storage", storage] if storage else []
    return ["run", str(sweep.resolve().relative_to(here)), *options]


def check_storage(sweep: Sweep) -> None:
    """Rejects a relative storage folder: it would lie in the job's working directory, which Ray deletes.

    Raises:
        UsageError: if `storage` is a relative path.
    """
    if shared.mounted_folder(sweep.storage) and not Path(sweep.storage).expanduser().is_absolute():
        raise UsageError(
            f"storage: {sweep.storage} would be in the job's copy of this directory, which Ray deletes; set --storage "
            "to a folder that every node mounts, e.g. /mnt/safecomm/runs"
        )


def submit(address: str, command: Sequence[str]) -> tuple[Any, Job]:
    """Uploads this directory and starts `safecomm COMMAND` in it.

    Args:
        address: the dashboard's, e.g. `http://HEAD:8265`.
        command: the safecomm subcommand and its arguments.

    Returns:
        Ray's client and the job.

    Raises:
        ClusterError: if the cluster is unreachable, rejects our token or refuses the job.
    """
    address = (address if "://" in address else f"http://{address}").rstrip("/")
    client = _client(address)
    expected = ",".join(name for name in SECRETS if os.environ.get(name))
    environment = {EXPECTED: expected, "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}
    with tempfile.TemporaryDirectory() as scratch:
        package = Path(scratch) / "safecomm.zip"
        size = pack(Path.cwd(), package)
        try:
            job = client.submit_job(
                entrypoint=shlex.join(["python", "-m", "safecomm", *command]),
                runtime_env={"working_dir": str(package), "env_vars": environment},
            )
        except Exception as error:  # Ray's client and requests raise any type about a server's answer
            raise ClusterError(f"the cluster at {address} refused the job: {_first_line(error)}") from error
    return client, Job(job, address, size)


def follow(client: Any, job: Job, write: Callable[[str], object]) -> int:
    """Streams a job's log until the job ends.

    Returns:
        The job's exit code; 1 if it has none, 130 if it was stopped.
    """
    written = 0
    while True:
        written = asyncio.run(_tail(client, job.id, written, write))
        info = _info(client, job)
        if info.status.is_terminal():
            break
        time.sleep(PAUSE_SECONDS)
    if info.status.value != "FAILED":
        return {"SUCCEEDED": 0, "STOPPED": StoppedError.exit_code}[info.status.value]
    if info.driver_exit_code is None:
        write(f"the job did not run: {info.message}\n")
    return max(1, info.driver_exit_code or 1)  # negative if a signal killed the driver


def _info(client: Any, job: Job) -> Any:
    """Returns a job's state; waits for a dashboard that is away for a moment.

    Raises:
        ClusterError: if it stays away; the job goes on.
    """
    for pause in (PAUSE_SECONDS, 5 * PAUSE_SECONDS, 15 * PAUSE_SECONDS, None):
        try:
            return client.get_job_info(job.id)
        except Exception as error:  # as in `submit`
            if pause is None:
                raise ClusterError(
                    f"{job.address} no longer answers ({_first_line(error)}); the job goes on, follow it with: "
                    f"{job.command('logs -f')}"
                ) from error
            time.sleep(pause)


async def _tail(client: Any, job: str, written: int, write: Callable[[str], object]) -> int:
    """Streams the log from a position until the connection breaks; returns the new position."""
    import aiohttp

    position = 0
    try:
        async for text in client.tail_job_logs(job):
            position += len(text)
            if position > written:
                write(text[written - position :])
                written = position
    except (aiohttp.ClientError, RuntimeError, OSError):  # the connection broke; the job continues
        pass
    return written


def _client(address: str) -> Any:
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    check_answers(address)
    for name in ("dashboard_sdk", "job.sdk"):  # they log what we already print
        logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.WARNING)
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # otherwise RAY_ADDRESS takes precedence over our argument
    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise refused(address) from error
    except Exception as error:  # Ray's client and requests raise any type about a server's answer
        raise ClusterError(f"{address} is not a Ray dashboard: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
