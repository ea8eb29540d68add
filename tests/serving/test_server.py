"""The endpoint of a run's adapter: how it is started, and what it keeps to itself."""

import os
import stat
from itertools import pairwise
from pathlib import Path

import pytest

from safecomm.cli.serve import TOKEN, _token
from safecomm.serving.server import KEY, server_command, server_environment, settings_for


@pytest.fixture
def command(lab: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    for name in ("OMP_NUM_THREADS", "VLLM_ENABLE_V1_MULTIPROCESSING"):  # set for the server's process
        monkeypatch.setenv(name, os.environ.get(name, ""))
    settings = settings_for(None, 64, 256)
    return server_command("original", lab["aligned"], None, settings, "127.0.0.1", 8123)


def test_server_is_set_up_like_the_engines_of_a_sweep(command: list[str], lab: dict[str, Path]) -> None:
    flags = dict(pairwise(command))
    assert flags["--model"] == str(lab["aligned"])
    assert (flags["--host"], flags["--port"], flags["--max-model-len"]) == ("127.0.0.1", "8123", "256")
    assert flags["--served-model-name"] == "original" and flags["--generation-config"] == "vllm"
    assert "--enforce-eager" in command and "--no-enable-chunked-prefill" in command
    assert not [one for one in command if one in ("None", "True", "False")]


def test_token_is_no_argument_and_no_one_else_can_read_it(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    made = _token(tmp_path)
    assert (tmp_path / "serve-token").read_text() == made and len(made) >= 32
    assert stat.S_IMODE((tmp_path / "serve-token").stat().st_mode) == 0o600
    assert made not in capsys.readouterr().out
    assert server_environment(made)[KEY] == made and made not in " ".join(command)
    monkeypatch.setenv(TOKEN, "mine")
    assert _token(tmp_path) == "mine"
