"""An unreachable cluster is reported immediately, in one line."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from loopback import serving
from typer.testing import CliRunner

from safecomm.cluster.reachable import ClusterError, check_ray_address, token_state
from safecomm.cluster.session import ray_session
from safecomm.cluster.submit import submit
from safecomm.errors import SafecommError

TOKEN = "0123456789abcdef" * 2


@pytest.fixture
def dashboard() -> Iterator[str]:
    """A server that knows no token but ours, as a dashboard with token authentication."""

    def reply(request: BaseHTTPRequestHandler) -> None:
        known = request.headers.get("Authorization") == f"Bearer {TOKEN}"
        request.send_response(200 if known else 403 if "Authorization" in request.headers else 401)
        request.end_headers()
        request.wfile.write(json.dumps({"ray_version": "2.60.0"}).encode())

    with serving(reply) as address:
        yield address


@pytest.fixture
def dead_port() -> int:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        return server.server_port


def test_unreachable_address_is_reported_immediately(dead_port: int) -> None:
    """Ray tries for two minutes, and ends the process."""
    started = time.monotonic()
    with (
        pytest.raises(ClusterError, match=f"no Ray cluster at 127.0.0.1:{dead_port}"),
        ray_session(f"127.0.0.1:{dead_port}"),
    ):
        pass
    with pytest.raises(ClusterError, match="no Ray cluster at http"):
        submit(f"127.0.0.1:{dead_port}", ["run"])
    assert time.monotonic() - started < 10


def test_dashboard_address_is_rejected_as_cluster_address() -> None:
    with pytest.raises(ClusterError, match="safecomm submit"):
        check_ray_address("http://127.0.0.1:8265")


@pytest.mark.parametrize("address", ["127.0.0.1:", "127.0.0.1:port", "http://"])
def test_address_without_port_is_rejected(address: str) -> None:
    with pytest.raises(ClusterError):
        check_ray_address(address)


RUN = """
import sys
from safecomm.cluster.submit import submit
from safecomm.errors import SafecommError
from safecomm.errors import SafecommError
try:
    submit(sys.argv[1], ["run"])
except SafecommError as error:
    print(error)
"""


@pytest.mark.parametrize("token", ["wrong", "none", "off"])
def test_wrong_or_missing_token_is_reported_in_one_line(dashboard: str, token: str, tmp_path: Path) -> None:
    """In a process of its own, for Ray reads its token once."""
    file = tmp_path / "token"
    if token == "wrong":
        file.write_text("f" * 32)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = kept | {"RAY_AUTH_MODE": "disabled" if token == "off" else "token", "RAY_AUTH_TOKEN_PATH": str(file)}
    command = [sys.executable, "-c", RUN, dashboard]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.strip().splitlines()
    assert "does not accept the token" in line and "ffff" not in line
    assert {"wrong": str(file), "none": "there is no token in", "off": "off here"}[token] in line


def test_messages_about_the_token_never_contain_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    assert TOKEN not in token_state()


def test_submit_reports_an_unreachable_cluster_in_one_line(dead_port: int, tmp_path: Path) -> None:
    from safecomm.cli import app

    address = f"http://127.0.0.1:{dead_port}"
    done = CliRunner().invoke(app, ["submit", "sweeps/lab.yaml", "--address", address, "--storage", str(tmp_path)])
    assert isinstance(done.exception, ClusterError) and "\n" not in str(done.exception)


def test_a_ray_that_does_not_start_is_no_bug_of_safecomm(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**how: object) -> None:
        raise Exception("The current node timed out during startup.")  # as Ray raises it

    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # other tests share a session
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with (
        pytest.raises(SafecommError, match="could not start on this machine: The current node timed"),
        ray_session(None),
    ):
        pass
