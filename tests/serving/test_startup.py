"""Time limits for the start of engines grow with the size of the model."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from serving_helpers import SETTINGS

from safecomm.serving.startup import ENGINE_SECONDS, engine_seconds, fleet_seconds
from safecomm.serving.vllm_engine import engine_arguments

BYTES_70B = 140 * 10**9


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A folder with the size of a 70B checkpoint; the file is sparse and takes no disk."""
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(BYTES_70B)
    return tmp_path


def test_the_time_limit_allows_an_engine_to_read_its_weights(large: Path, lab: dict[str, Path]) -> None:
    assert engine_seconds(large) == ENGINE_SECONDS + 1400
    assert ENGINE_SECONDS < engine_seconds(lab["aligned"]) < ENGINE_SECONDS + 1
    assert fleet_seconds(large) > engine_seconds(large)


def test_vllm_waits_as_long(lab: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {**os.environ})
    engine_arguments(str(lab["aligned"]), replace(SETTINGS, max_lora_rank=0))
    assert os.environ["VLLM_ENGINE_READY_TIMEOUT_S"] == f"{engine_seconds(lab['aligned']):.0f}"
