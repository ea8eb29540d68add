"""Downloads from the Hub and the web, and quick failures that name the page and the workaround."""

import http.server
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safecomm.data.sources import Web
from safecomm.errors import DataError

CSV = b"goal,target\nDo a bad thing,Sure\n"
LOAD = "from safecomm.data.catalog.registry import load_prompts; from safecomm.errors import SafecommError\n"


class Server(http.server.ThreadingHTTPServer):
    """Serves one CSV, and refuses all hub datasets as a hub refuses gated ones."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.csv = CSV

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        body = {"/": b"the hub", "/rows.csv": self.server.csv}.get(self.path, b"")
        self.send_response(200 if body else 403)
        if not body:
            self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_file_is_downloaded_once(server: Server, cache: Path):
    source = Web(f"{server.url}/rows.csv", page="https://example.org")
    first = source.table()
    server.shutdown()
    assert source.table().rows == first.rows == [{"goal": "Do a bad thing", "target": "Sure"}]
    assert server.asked == ["/rows.csv"]


def test_broken_file_is_removed_from_the_cache(server: Server, cache: Path):
    source = Web(f"{server.url}/rows.csv", page="https://example.org")
    server.csv = b'goal\n"never closed'
    with pytest.raises(DataError, match="not valid CSV"):
        source.table()
    server.csv = CSV
    assert len(source.table().rows) == 1


def test_a_missing_address(server: Server, cache: Path):
    with pytest.raises(DataError, match=r"gone\.csv can't be downloaded: .*403"):
        Web(f"{server.url}/gone.csv", page="https://example.org").table()


def run(code: str, cache: Path, **environment: str) -> str:
    """Runs code in a process of its own, since the hub's client reads its settings when it is imported."""
    settings = {
        "HF_HOME": str(cache / "hf"),
        "HF_ENDPOINT": "https://huggingface.co",
        "HF_HUB_OFFLINE": "0",
    } | environment
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | settings, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


REFUSED = f"""{LOAD}
try:
    load_prompts("xstest")
except SafecommError as error:
    print(error)
"""


def test_unreachable_hub_fails_quickly(cache: Path):
    started = time.monotonic()
    message = run(REFUSED, cache, HF_ENDPOINT="http://127.0.0.1:9")
    assert time.monotonic() - started < 15
    assert "http://127.0.0.1:9 can't be reached" in message
    assert "https://huggingface.co/datasets/Paul/XSTest" in message and "path:" in message


def test_gated_dataset_points_to_the_access_page(server: Server, cache: Path):
    message = run(REFUSED, cache, HF_ENDPOINT=server.url)
    assert "xstest: hf://datasets/Paul/XSTest/train can't be loaded" in message
    assert "gated" in message
    assert "request access at https://huggingface.co/datasets/Paul/XSTest" in message and "path:" in message


def test_offline_mode_without_a_cached_copy(cache: Path):
    message = run(REFUSED, cache, HF_HUB_OFFLINE="1")
    assert "xstest: hf://datasets/Paul/XSTest/train can't be loaded" in message


def test_a_hub_table_becomes_rows(cache: Path, tmp_path: Path):
    """The `datasets` library takes a folder as it takes a hub id."""
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "test.csv").write_bytes(b"instruction,category\nDo a bad thing,drug\nDo more,\n")
    code = f"from safecomm.data.sources import Hub; print(Hub({str(tmp_path / 'repo')!r}, split='test').table().rows)"
    rows = [{"instruction": "Do a bad thing", "category": "drug"}, {"instruction": "Do more", "category": None}]
    assert run(code, cache, HF_HUB_OFFLINE="1").strip() == str(rows)
