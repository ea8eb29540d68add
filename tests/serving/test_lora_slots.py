"""The number of concurrent adapters is limited by a small share of the memory, from vLLM's buffers per adapter."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from safecomm.serving.engine import EngineSettings
from safecomm.serving.lora_slots import CPU_BYTES, DEFAULT_SLOTS, GPU_SHARE, adapters_at_once, lora_arguments

SETTINGS = EngineSettings(max_new_tokens=8, max_model_len=64, max_lora_rank=12, lora_targets=("q_proj", "v_proj"))
H100 = 80 * 1024**3


def llama(layers: int, hidden: int, kv: int, intermediate: int) -> list[tuple[int, int]]:
    """d_out x d_in of all linear modules."""
    attention = [(hidden, hidden), (kv, hidden), (kv, hidden), (hidden, hidden)]
    return layers * [*attention, (intermediate, hidden), (intermediate, hidden), (hidden, intermediate)]


LLAMA_8B, LLAMA_70B = llama(32, 4096, 1024, 14336), llama(80, 8192, 1024, 28672)


def test_an_8b_model_has_room_for_the_maximum_number_of_adapters_at_usual_rank() -> None:
    assert adapters_at_once(LLAMA_8B, 16, 2, SETTINGS, H100) == 16


def test_slots_of_an_8b_model_fill_the_share_without_exceeding_it() -> None:
    slot = 256 * 2_621_440 * 2  # rank x sum of d_in + d_out over the modules, in bf16: 1.34 GB
    at_once = adapters_at_once(LLAMA_8B, 256, 2, SETTINGS, H100)
    assert at_once == 3
    assert at_once * slot <= GPU_SHARE * H100 < (at_once + 1) * slot


def test_a_70b_model_has_fewer_slots_and_more_when_it_is_split() -> None:
    whole = adapters_at_once(LLAMA_70B, 64, 2, SETTINGS, H100)
    by_layer = adapters_at_once(LLAMA_70B, 64, 2, replace(SETTINGS, pipeline_parallel=4), H100)
    within_layers = adapters_at_once(LLAMA_70B, 64, 2, replace(SETTINGS, tensor_parallel=4), H100)
    assert (whole, by_layer) == (2, 10)
    # Each GPU holds one factor of every module whole.
    assert within_layers == 3


def test_there_is_always_room_for_one() -> None:
    assert adapters_at_once(LLAMA_70B, 512, 4, SETTINGS, H100 // 10) == 1


def test_a_tiny_model_stops_at_the_ceiling_which_is_lower_without_a_gpu() -> None:
    tiny = llama(4, 64, 32, 128)
    assert adapters_at_once(tiny, 8, 4, SETTINGS, H100) == 16
    assert adapters_at_once(tiny, 8, 4, SETTINGS, None) == 8
    assert adapters_at_once(LLAMA_8B, 64, 4, SETTINGS, None) == CPU_BYTES // (64 * 2_621_440 * 4) == 1


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """One layer of a model whose adapters fill the share, so that every counted module affects the result."""
    sizes = {"q_proj": 16384, "k_proj": 8192, "v_proj": 8192, "o_proj": 16384}
    modules = {f"model.layers.0.self_attn.{name}.weight": size for name, size in sizes.items()}
    tensors = {name: torch.zeros(size, 256, dtype=torch.bfloat16) for name, size in modules.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path


def test_shapes_and_dtype_are_the_checkpoints_and_packed_modules_have_slots_too(checkpoint: Path) -> None:
    slot = 16 * (16384 + 8192 + 8192 + 3 * 256) * 2  # k_proj with q_proj and v_proj; o_proj is no target
    found = lora_arguments(checkpoint, SETTINGS, int(5.5 * slot / GPU_SHARE))
    assert (found["max_lora_rank"], found["max_loras"]) == (16, 5)
    assert found["lora_target_modules"] == ["q_proj", "v_proj"]


def test_a_model_without_adapters_has_no_slots(checkpoint: Path) -> None:
    assert lora_arguments(checkpoint, replace(SETTINGS, max_lora_rank=0), H100) == {}


def test_a_checkpoint_whose_shapes_can_not_be_read_is_left_to_vllm(tmp_path: Path) -> None:
    packed = {"model.layers.0.self_attn.q_proj.qweight": torch.zeros(4, 4, dtype=torch.int32)}
    save_file(packed, tmp_path / "model.safetensors")
    assert lora_arguments(tmp_path, SETTINGS, H100)["max_loras"] == DEFAULT_SLOTS
