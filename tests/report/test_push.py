"""Evidence packs are uploaded whole, and to no public repository by accident; the Hub is one on loopback."""

import base64
import io
import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from command_line import safecomm
from loopback import serving

from safecomm.errors import UsageError
from safecomm.report.pack.push import push as upload
from safecomm.report.release import Release


@pytest.fixture
def visibility() -> dict[str, str]:
    """The repositories of the Hub on loopback: path of the API -> private or public."""
    return {}


@pytest.fixture
def hub(visibility: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """The parts of the Hub's API that an upload uses, on loopback; yields path -> the content that arrived."""
    arrived: dict[str, bytes] = {}

    def reply(request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        answer: object = {}
        missing = False
        known = request.headers.get("Authorization") == "Bearer hf_right"
        if request.path.endswith("/whoami-v2"):
            answer = {"name": "acme", "type": "user"}
        elif request.path.endswith("/repos/create"):
            visibility.setdefault("/api/models/acme/safe", json.loads(body)["visibility"])
            answer = {"url": f"http://{request.headers['Host']}/acme/safe", "name": "acme/safe"}
        elif "/preupload/" in request.path:
            files = [{"path": one["path"], "uploadMode": "regular"} for one in json.loads(body)["files"]]
            answer = {"files": [one | {"shouldIgnore": False} for one in files]}
        elif "/commit/" in request.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    arrived[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            answer = {
                "commitUrl": f"http://{request.headers['Host']}/acme/safe/commit/1",
                "commitOid": "1" * 40,
                "success": True,
            }
        elif request.path.startswith("/api/models/"):
            missing = request.path not in visibility
            answer = {"id": "acme/safe", "private": visibility.get(request.path) == "private"}
        content = json.dumps(answer).encode()
        request.send_response(404 if missing else 200 if known else 401)
        if missing:
            request.send_header("X-Error-Code", "RepoNotFound")
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    with serving(reply) as address:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_right")
        yield arrived


def push(release: Release, out: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    words = ("--arm", "safe_merge", "--evidence", out, "--push", "acme/safe", "--yes")
    return safecomm(monkeypatch, "export", release.run.folder, *words)


def test_push_uploads_every_file_unchanged(
    release: Release,
    hub: dict[str, bytes],
    visibility: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert push(release, tmp_path / "pack", monkeypatch) == 0
    assert "uploaded to" in capsys.readouterr().out
    files = {p.relative_to(tmp_path / "pack").as_posix(): p for p in (tmp_path / "pack").rglob("*") if p.is_file()}
    assert {name: path.read_bytes() for name, path in files.items()} == hub
    assert visibility == {"/api/models/acme/safe": "private"}, "a new repository is private"


def test_push_with_yes_refuses_a_public_repository_before_it_writes(
    release: Release,
    hub: dict[str, bytes],
    visibility: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    visibility["/api/models/acme/safe"] = "public"
    assert push(release, tmp_path / "pack", monkeypatch) == 2
    told = capsys.readouterr().err
    assert "acme/safe is PUBLIC" in told and "hf repos settings acme/safe --private" in told and told.count("\n") == 1
    assert hub == {} and not (tmp_path / "pack").exists()


@pytest.mark.parametrize(("answer", "uploads"), [("y", True), ("n", False), ("", False)])
def test_push_to_a_public_repository_takes_a_yes_to_a_question_that_says_so(
    release: Release,
    hub: dict[str, bytes],
    visibility: dict[str, str],
    answer: str,
    uploads: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    visibility["/api/models/acme/safe"] = "public"
    terminal = io.StringIO(f"{answer}\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", terminal)
    words = ("--arm", "safe_merge", "--evidence", tmp_path / "pack", "--push", "acme/safe")
    assert safecomm(monkeypatch, "export", release.run.folder, *words) == 0
    assert "to the PUBLIC repository acme/safe?" in capsys.readouterr().out
    assert bool(hub) == uploads and (tmp_path / "pack" / "INDEX.md").is_file()


def test_a_repository_that_became_public_after_the_question_gets_nothing(
    pack: Path, hub: dict[str, bytes], visibility: dict[str, str]
) -> None:
    visibility["/api/models/acme/safe"] = "public"
    with pytest.raises(UsageError, match="acme/safe is PUBLIC"):
        upload(pack, "acme/safe", public=False)
    assert hub == {}


@pytest.mark.parametrize(
    ("token", "code", "said"),
    [("", 2, "there is no token for http"), ("hf_wrong", 1, "the Hub answered 401")],
)
def test_push_without_access_is_one_line_and_writes_nothing(
    release: Release,
    hub: dict[str, bytes],
    token: str,
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    assert push(release, tmp_path / "pack", monkeypatch) == code
    told = capsys.readouterr().err
    assert said in told and "hf auth login" in told and told.count("\n") == 1
    assert not (tmp_path / "pack").exists() and hub == {}


def test_push_without_a_network_is_one_line(
    release: Release,
    hub: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert push(release, tmp_path / "pack", monkeypatch) == 1
    told = capsys.readouterr().err
    assert "the Hub can't be reached" in told and told.count("\n") == 1
