"""Inaccessible models are reported before anything is downloaded."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from loopback import serving

from safecomm.plan.hub import check_models
from safecomm.spec import Sweep, read_sweep

LAB = Path(__file__).parents[2] / "sweeps" / "lab.yaml"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub with one model behind a gate and one open, on loopback."""

    def reply(request: BaseHTTPRequestHandler) -> None:
        gated, is_open = "acme/gated" in request.path, "acme/open" in request.path
        request.send_response(200 if is_open else 403 if gated else 404)
        request.send_header("X-Repo-Commit", "0" * 40)
        request.send_header("ETag", '"1"')
        request.send_header("Content-Length", "2")
        if not is_open:
            request.send_header("X-Error-Code", "GatedRepo" if gated else "RepoNotFound")
        request.end_headers()

    with serving(reply) as address:
        ask_there(address, monkeypatch)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield


def ask_there(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes a server for the Hub."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


def sweep(model: str) -> Sweep:
    return read_sweep(LAB, [f"model.aligned={model}", "evaluate.judges=[refusal]"])


@pytest.mark.parametrize(
    ("model", "level", "text"),
    [
        ("acme/open", "ok", "is available"),
        ("acme/gated", "problem", "is gated; set HF_TOKEN"),
        ("acme/none", "problem", "not a local folder and not on the Hub"),
    ],
)
def test_the_hub_is_asked_for_each_model(hub: None, model: str, level: str, text: str) -> None:
    (found,) = check_models(sweep(model))
    assert found.subject == "model.aligned" and found.level == level and text in found.text


def test_offline_is_said_and_a_model_that_is_not_there_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (found,) = check_models(sweep("acme/none"))
    assert found.level == "problem" and "HF_HUB_OFFLINE is set" in found.text


def test_folders_and_the_labs_models_are_not_asked_for() -> None:
    assert check_models(sweep("lab://aligned")) == []


@pytest.mark.parametrize("answer", ["refused", "error", "silence"])
def test_a_hub_that_is_down_is_one_line_and_no_obstacle_for_cached_models(
    answer: str, hub: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue: huggingface_hub 2.4 raises errors of httpx2, and only those of httpx were caught."""
    with broken_hub(answer) as address:
        ask_there(address, monkeypatch)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr("safecomm.storage.hub_cache.TIMEOUT_SECONDS", 0.5)
        (found,) = check_models(sweep("acme/open"))
        assert found.level == "problem" and "the Hub is unreachable" in found.text and "\n" not in found.text
        snapshot = tmp_path / "models--acme--open" / "snapshots" / ("0" * 40)
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text("{}")
        (tmp_path / "models--acme--open" / "refs").mkdir()
        (tmp_path / "models--acme--open" / "refs" / "main").write_text("0" * 40)
        (found,) = check_models(sweep("acme/open"))
        assert found.level == "ok" and "is in the Hub cache" in found.text


@contextmanager
def broken_hub(answer: str) -> Iterator[str]:
    """Runs a server that refuses connections, answers 500, or accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        if answer == "silence":
            yield address
            return
    if answer == "refused":
        yield address
        return

    def reply(request: BaseHTTPRequestHandler) -> None:
        request.send_response(500)
        request.end_headers()

    with serving(reply) as address:
        yield address
