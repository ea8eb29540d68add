"""A Ray head node for tests, on loopback, with token authentication."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from ports import free_port

RAY = str(Path(sys.executable).with_name("ray"))
START_SECONDS = 120.0
RAYS_OWN = ("IDLE", "DashboardAgent", "RuntimeEnvAgent", "_AutoscalingCoordinatorActor")
"""Processes that a cluster keeps for all jobs; the last comes with the first use of Ray Data."""
TOKEN = "0123456789abcdef" * 2


@dataclass(frozen=True)
class Head:
    """A head node that runs."""

    address: str
    """Of its dashboard."""
    gcs: str
    """Of Ray itself."""
    pid: int
    folder: Path
    """Where it keeps its logs and what is uploaded to it."""

    def processes(self) -> dict[int, str]:
        """Returns the processes that do something for somebody, with their names."""
        found = {}
        for process in psutil.Process(self.pid).children(recursive=True):
            try:
                name = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if name.startswith("ray::") and not name.removeprefix("ray::").startswith(RAYS_OWN):
                found[process.pid] = name
        return found


def with_token(folder: Path) -> dict[str, str]:
    """Returns the environment variables of a client that has the head's token."""
    file = folder / "token"
    file.write_text(TOKEN)
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(file)}


@contextmanager
def head_node(environment: Mapping[str, str]) -> Iterator[Head]:
    """Runs a head node in an environment."""
    dashboard, gcs = free_port(), free_port()
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # a socket's path has 107 characters at most
    ports = [f"--port={gcs}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1"]
    ports += [f"--dashboard-agent-listen-port={free_port()}"]  # other tests' Ray has the usual one
    command = [RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--temp-dir={folder}", *ports]
    node = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    address = f"http://127.0.0.1:{dashboard}"
    try:
        deadline = time.monotonic() + START_SECONDS
        trivial = [RAY, "job", "submit", "--address", address, "--", "true"]
        while subprocess.run(trivial, env=environment, capture_output=True).returncode:
            assert node.poll() is None and time.monotonic() < deadline, "the head node did not start"
            time.sleep(1)
        yield Head(address, f"127.0.0.1:{gcs}", node.pid, folder)
    finally:
        _end(node)
        shutil.rmtree(folder, ignore_errors=True)


def _end(node: "subprocess.Popen[bytes]") -> None:
    node.terminate()  # drains the node and ends what it started
    try:
        node.wait(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()
