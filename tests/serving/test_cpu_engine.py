"""On a CPU, an engine's step lasts about a second."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from serving_helpers import SETTINGS

from safecomm.serving.vllm_engine import CPU_STEP_TOKENS, engine_arguments, step_tokens

BARE = replace(SETTINGS, max_lora_rank=0)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restores the environment variables that the arguments set."""
    monkeypatch.setattr(os, "environ", {**os.environ})


@pytest.fixture
def large(lab: dict[str, Path], tmp_path: Path) -> Path:
    """The lab's configuration with the weights of a model of 10 billion parameters, in a sparse file."""
    (tmp_path / "config.json").write_text((lab["aligned"] / "config.json").read_text())
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(40 * 10**9)
    return tmp_path


@pytest.mark.parametrize(
    ("parameters", "threads", "tokens"), [(0.9e6, 1, CPU_STEP_TOKENS), (1e8, 4, 1000), (8e9, 8, 256)]
)
def test_a_step_has_as_many_tokens_as_the_cpu_processes_in_a_second(
    parameters: float, threads: int, tokens: int
) -> None:
    assert step_tokens(parameters, threads) == tokens


def test_a_small_model_uses_vllms_step_size_and_a_large_one_a_smaller(lab: dict[str, Path], large: Path) -> None:
    assert "max_num_batched_tokens" not in engine_arguments(str(lab["aligned"]), BARE)
    assert engine_arguments(str(large), BARE)["max_num_batched_tokens"] == 256


def test_without_chunks_a_whole_prompt_is_a_step(large: Path) -> None:
    found = engine_arguments(str(large), replace(BARE, sampled=True, max_model_len=1024))
    assert (found["max_num_batched_tokens"], found["enable_chunked_prefill"]) == (1024, False)
