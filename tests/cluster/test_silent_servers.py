"""A server that accepts connections and says nothing, or something else than Ray, is refused within seconds."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest
from loopback import serving

from safecomm.cluster import reachable
from safecomm.cluster.reachable import ClusterError, check_answers
from safecomm.cluster.submit import submit


@pytest.fixture(autouse=True)
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reachable, "CONNECT_SECONDS", 0.5)


@pytest.fixture
def silent() -> Iterator[str]:
    """A port at which connections are accepted and never answered."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def slowly(server: socket.socket) -> None:
    """Answers a byte at a time, for longer than anyone waits."""
    connection, _ = server.accept()
    with connection:
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000:
            try:
                connection.sendall(bytes([byte]))
            except OSError:
                return
            time.sleep(0.05)


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_a_server_that_never_answers_is_reported_in_time(silent: str, scheme: str) -> None:
    started = time.monotonic()
    with pytest.raises(ClusterError, match=r"no Ray cluster at .*timed out"):
        check_answers(f"{scheme}{silent}")
    if scheme:
        with pytest.raises(ClusterError, match="timed out"):
            submit(f"{scheme}{silent}", ["doctor"])
    assert time.monotonic() - started < 5


def test_a_server_that_answers_a_byte_at_a_time_is_given_up() -> None:
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=slowly, args=(server,), daemon=True).start()
        with pytest.raises(ClusterError, match="its answer takes more than 1 s"):
            check_answers(f"http://127.0.0.1:{server.getsockname()[1]}")
    assert time.monotonic() - started < 5


OTHERS = [
    (500, b"oops", "HTTP status 500"),
    (404, b"", "HTTP status 404"),
    (200, b"<html>", "not JSON"),
    (200, b"\xff\xfe", "not JSON"),
    (200, b"[]", "names no ray_version"),
    (200, json.dumps({"version": "1"}).encode(), "names no ray_version"),
    (200, b"[" * 100_000, "nested too deeply"),
]


@pytest.mark.parametrize(("status", "body", "said"), OTHERS, ids=range(len(OTHERS)))
def test_another_server_is_no_dashboard(status: int, body: bytes, said: str) -> None:
    def reply(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.end_headers()
        request.wfile.write(body)

    with serving(reply) as address:
        with pytest.raises(ClusterError, match=said) as caught:
            check_answers(address)
        assert "\n" not in str(caught.value)
        with pytest.raises(ClusterError, match="is not a Ray cluster: it answers with"):
            check_answers(address.removeprefix("http://"))
