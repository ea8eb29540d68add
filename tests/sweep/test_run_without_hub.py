"""`run` and `doctor` where the Hub refuses, says nothing or fails: one line; with cached models they go on."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import yaml
from loopback import serving
from small_sweep import LEAST, ONE_ARM, PATIENCE, write_sweep

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def broken_hub(fault: str) -> Iterator[str]:
    """Runs a server that refuses connections, accepts them and says nothing, or answers with status 500."""
    if fault == "error":

        def reply(request: BaseHTTPRequestHandler) -> None:
            request.send_response(500)
            request.end_headers()

        with serving(reply) as address:
            yield address
        return
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        if fault == "silence":
            yield address
            return
    yield address


def cache(home: Path, lab: dict[str, Path], template: str | None = None) -> None:
    """Puts the lab's models into the Hub's cache, as `acme/base` and `acme/aligned`."""
    for name in ("base", "aligned"):
        repository = home / "hub" / f"models--acme--{name}"
        shutil.copytree(lab[name], repository / "snapshots" / COMMIT)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(COMMIT)
        if template is not None:
            (repository / "snapshots" / COMMIT / "chat_template.jinja").write_text(template)


def safecomm(home: Path, address: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs the command line with this Hub; it waits for each answer for a second at most."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "HF_"))}
    hub = {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_ETAG_TIMEOUT": "1", "WANDB_MODE": "offline"}
    command = [sys.executable, "-m", "safecomm", *words]
    return subprocess.run(command, env=kept | hub, capture_output=True, text=True, timeout=PATIENCE)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A sweep whose models are on the Hub."""
    models = {"base": "acme/base", "aligned": "acme/aligned"}
    evaluate = LEAST["evaluate"] | {"max_model_len": 256, "max_new_tokens": 8}
    made = LEAST | {"model": models, "arms": ONE_ARM, "evaluate": evaluate, "storage": str(tmp_path / "runs")}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(made))
    return tmp_path / "sweep.yaml"


@pytest.mark.waits
@pytest.mark.parametrize("fault", ["refused", "error", "silence"])
def test_a_hub_that_is_down_is_a_line_for_each_model_that_is_not_cached(
    fault: str, sweep: Path, lab: dict[str, Path], tmp_path: Path
) -> None:
    with broken_hub(fault) as address:
        run = safecomm(tmp_path / "home", address, "run", str(sweep))
        doctor = safecomm(tmp_path / "home", address, "doctor", str(sweep))
        assert run.returncode == 1 and run.stderr.count("\n") == 2, run.stderr
        for name in ("base", "aligned"):
            said = f"model.{name}: acme/{name}: the Hub is unreachable"
            assert said in run.stderr and "the model is not in the cache; use a local folder" in run.stderr
        assert doctor.returncode == 1 and doctor.stderr == "" and "the Hub is unreachable" in doctor.stdout

        cache(tmp_path / "home", lab, "{{ raise_exception('went on') }}")
        run = safecomm(tmp_path / "home", address, "run", str(sweep))
        assert run.returncode == 1 and "the chat template of" in run.stderr and "went on" in run.stderr, run.stderr
        assert run.stderr.count("\n") == 1, run.stderr
        doctor = safecomm(tmp_path / "home", address, "doctor", str(sweep))
        assert "acme/aligned is in the Hub cache" in " ".join(doctor.stdout.split())


@pytest.mark.slow
@pytest.mark.ray
def test_with_cached_models_a_sweep_runs_to_its_end_without_the_hub(lab: dict[str, Path], tmp_path: Path) -> None:
    sweep = yaml.safe_load(write_sweep(tmp_path, lab, {"safe_lora": [{"safe_lora": {"lowest": 2}}]}).read_text())
    sweep["model"] = {"base": "acme/base", "aligned": "acme/aligned"}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(sweep))
    cache(tmp_path / "home", lab)
    with broken_hub("refused") as address:
        done = safecomm(tmp_path / "home", address, "run", str(tmp_path / "small.yaml"))
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "runs" / "small" / "report.html").is_file()
