"""Inaccessible models are reported before anything is downloaded."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from safecomm.plan.hub import check_models
from safecomm.spec import Sweep, read_sweep

LAB = Path(__file__).parents[2] / "sweeps" / "lab.yaml"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub with one model behind a gate and one open, on loopback."""

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            gated, is_open = "acme/gated" in self.path, "acme/open" in self.path
            self.send_response(200 if is_open else 403 if gated else 404)
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("ETag", '"1"')
            self.send_header("Content-Length", "2")
            if not is_open:
                self.send_header("X-Error-Code", "GatedRepo" if gated else "RepoNotFound")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield
    server.shutdown()
    server.server_close()


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
