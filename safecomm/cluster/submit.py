"""Sends a sweep to a cluster as a Ray job and follows it.

Secrets are not sent: Ray shows a job's environment to everybody who may submit one, and writes it into its logs. The
job gets the names of those that are set here, and says which of them the nodes do not have.
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

from safecomm.cluster.reach import ClusterError, check_answers, refused
from safecomm.cluster.upload import pack
from safecomm.errors import StoppedError, UsageError
from safecomm.spec import Sweep
from safecomm.spec.secrets import SECRETS
from safecomm.storage import shared

EXPECTED = "SAFECOMM_EXPECTED"
"""Tells a job which secrets are set where it was submitted, by name."""
STOP_SECONDS = 60
"""Time that a stopped job has to end its trials and its engines; Ray's own three seconds are for a script."""
PAUSE_SECONDS = 2.0
"""Between two tries to follow a log whose connection broke."""


@dataclass(frozen=True)
class Job:
    """A submitted job."""

    id: str
    address: str
    uploaded: int
    """Bytes."""

    @property
    def page(self) -> str:
        """Its page of the dashboard."""
        return f"{self.address}/#/jobs/{self.id}"

    def command(self, verb: str) -> str:
        """Returns the `ray job` command that does something with it."""
        return f"ray job {verb} --address {self.address} {self.id}"


def run_command(sweep: Path, overrides: Sequence[str], storage: str | None) -> list[str]:
    """Returns the command that runs a sweep on the cluster.

    Raises:
        UsageError: where the sweep's file does not go to the cluster with the working directory.
    """
    here = Path.cwd()
    if not sweep.resolve().is_relative_to(here):
        raise UsageError(f"{sweep}: lies outside of {here}, which goes to the cluster; submit from a folder above it")
    options = [part for override in overrides for part in ("--set", override)]
    options += ["--storage", storage] if storage else []
    return ["run", str(sweep.resolve().relative_to(here)), *options]


def check_storage(sweep: Sweep) -> None:
    """Refuses results in the job's copy of the working directory, which Ray deletes after the job.

    Raises:
        UsageError: with what to set.
    """
    if shared.mounted_folder(sweep.storage) and not Path(sweep.storage).expanduser().is_absolute():
        raise UsageError(
            f"storage: {sweep.storage} is a folder in the job's own copy of this directory, which Ray deletes; give "
            "--storage a folder that every node sees, e.g. /mnt/safecomm/runs"
        )


def submit(address: str, command: Sequence[str]) -> tuple[Any, Job]:
    """Uploads this directory and starts `safecomm COMMAND` in it.

    Args:
        address: the dashboard's, e.g. `http://HEAD:8265`.
        command: the verb and what follows it.

    Returns:
        Ray's client and the job.

    Raises:
        ClusterError: where the cluster can't be reached, does not take our token or refuses the job.
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
        except RuntimeError as error:
            raise ClusterError(f"the cluster at {address} refused the job: {str(error).splitlines()[0]}") from error
    return client, Job(job, address, size)


def follow(client: Any, job: Job, write: Callable[[str], object]) -> int:
    """Writes a job's log as it comes, until the job ends.

    Returns:
        The exit code for that end: the job's own, 1 where it has none, 130 where it was stopped.
    """
    written = 0
    while True:
        written = asyncio.run(_tail(client, job.id, written, write))
        info = client.get_job_info(job.id)
        if info.status.is_terminal():
            break
        time.sleep(PAUSE_SECONDS)
    if info.status.value != "FAILED":
        return {"SUCCEEDED": 0, "STOPPED": StoppedError.exit_code}[info.status.value]
    if info.driver_exit_code is None:
        write(f"the job did not run: {info.message}\n")
    return max(1, info.driver_exit_code or 1)  # below nought where a signal ended it


async def _tail(client: Any, job: str, written: int, write: Callable[[str], object]) -> int:
    """Writes the log from a position on, as far as the connection lasts; returns the position then."""
    import aiohttp

    place = 0
    try:
        async for text in client.tail_job_logs(job):
            place += len(text)
            if place > written:
                write(text[written - place :])
                written = place
    except (aiohttp.ClientError, RuntimeError, OSError):  # a tunnel that broke; the job goes on
        pass
    return written


def _client(address: str) -> Any:
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    check_answers(address)
    for name in ("dashboard_sdk", "job.sdk"):  # they log what we say
        logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.WARNING)
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # else RAY_ADDRESS would count for more than what we are told
    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise refused(address) from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(f"{address} does not answer as Ray's dashboard: {str(error).splitlines()[0]}") from error
