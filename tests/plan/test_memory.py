"""The memory estimate of an engine matches vLLM's allocations."""

import pytest

from safecomm.errors import EvaluationError
from safecomm.plan.memory import GIB, Serving, fleet_memory, served
from safecomm.plan.shapes import find_shape
from safecomm.spec.cluster import Replicas

LLAMA_8B = find_shape("meta-llama/Llama-3.1-8B")
GPU = 80 * GIB


def test_an_8b_model_is_served_from_16_gb_and_its_cache_from_the_rest() -> None:
    memory = fleet_memory(Serving(LLAMA_8B, Replicas(), 2048), GPU)
    assert memory.weights == LLAMA_8B.weight_bytes()
    assert memory.lora_slots == 0
    assert memory.sequence == 2048 * 128 * 1024
    left = served(GPU) - (memory.total - memory.sequence)
    assert memory.sequences(GPU) == left // memory.sequence > 100


def test_tensor_parallel_splits_weights_and_cache_but_no_key_value_head() -> None:
    whole, halved, most = (
        fleet_memory(Serving(LLAMA_8B, Replicas(tensor_parallel=gpus), 2048), GPU) for gpus in (1, 2, 16)
    )
    assert halved.weights == pytest.approx(whole.weights / 2, rel=1e-3)
    assert halved.sequence * 2 == whole.sequence
    assert most.sequence * 8 == whole.sequence


def test_of_two_pipeline_stages_each_has_half_the_layers_and_one_embedding() -> None:
    stage = fleet_memory(Serving(LLAMA_8B, Replicas(pipeline_parallel=2), 2048), GPU)
    assert stage.weights == pytest.approx(LLAMA_8B.weight_bytes() / 2, rel=1e-3)


def test_an_adapter_on_q_takes_the_place_of_the_fused_q_k_v_in_each_slot() -> None:
    memory = fleet_memory(Serving(LLAMA_8B, Replicas(), 2048, 9, ["q_proj", "down_proj"]), GPU)
    attention, mlp = (4096 + 4096) + 2 * (4096 + 1024), 14_336 + 4096
    assert memory.lora_slots == 2 * 16 * 32 * 16 * (attention + mlp)  # bf16, slots, layers, the next rank vLLM has


def test_a_rank_beyond_vllms_largest_is_refused() -> None:
    with pytest.raises(EvaluationError, match="up to rank 512, but this sweep can create one of rank 1024; lower"):
        fleet_memory(Serving(LLAMA_8B, Replicas(), 64, 1024, ["q_proj"]), GPU)
