"""The memory estimate of a fine-tune matches the libraries' allocations."""

import weakref
from typing import Any

import pytest

from safecomm.errors import ModelError
from safecomm.plan.finetune_memory import HOST_BUFFERS, FinetuneMemory, finetune_memory, host_memory, model_states
from safecomm.plan.memory import GIB
from safecomm.plan.shapes import ModelShape, find_shape
from safecomm.spec import Finetune

LLAMA_8B = find_shape("meta-llama/Llama-3.1-8B")
LLAMA_70B = find_shape("meta-llama/Llama-3.1-70B")
GPU = 80 * GIB


def tuned(shape: ModelShape = LLAMA_8B, workers: int = 2, **changes: Any) -> FinetuneMemory:
    settings = {"data": ["lab-telecom"], "micro_batch_size": 1} | changes
    return finetune_memory(shape, Finetune.model_validate(settings), workers)


@pytest.mark.parametrize("workers", [1, 8])
def test_zero_2_keeps_of_a_full_fine_tune_what_deepspeed_estimates(workers: int) -> None:
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs as estimate

    states = model_states(2, workers, frozen=0, trained=LLAMA_8B.parameters)
    _, theirs = estimate(LLAMA_8B.parameters, num_gpus_per_node=workers, cpu_offload=False)
    assert states.weights + states.gradients + states.optimizer == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("workers", [1, 8])
def test_zero_3_keeps_what_deepspeed_estimates_and_the_16_bit_weights(workers: int) -> None:
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs as estimate

    states = model_states(3, workers, frozen=0, trained=LLAMA_8B.parameters)
    _, theirs, gathered = estimate(
        LLAMA_8B.parameters,
        LLAMA_8B.embedding,
        num_gpus_per_node=workers,
        cpu_offload=False,
        cpu_offload_params=False,
    )
    whole = theirs - gathered + LLAMA_8B.weight_bytes() / workers
    assert states.weights + states.gradients + states.optimizer == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("workers", [1, 4])
def test_zero_2_offloads_of_a_full_fine_tune_what_deepspeed_estimates(workers: int) -> None:
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs as estimate

    states = model_states(2, workers, frozen=0, trained=LLAMA_8B.parameters, offload="cpu")
    host, gpu = estimate(LLAMA_8B.parameters, num_gpus_per_node=workers, cpu_offload=True)
    assert states.weights + states.gradients + states.optimizer == pytest.approx(gpu, rel=1e-6)
    assert HOST_BUFFERS * workers * states.host == pytest.approx(host, rel=1e-6)


@pytest.mark.parametrize("workers", [1, 8])
def test_zero_3_offloads_what_deepspeed_estimates(workers: int) -> None:
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs as estimate

    states = model_states(3, workers, frozen=0, trained=LLAMA_8B.parameters, offload="cpu")
    host, gpu, gathered = estimate(LLAMA_8B.parameters, LLAMA_8B.embedding, num_gpus_per_node=workers)
    assert states.weights + states.gradients + states.optimizer == gpu - gathered == 0
    assert HOST_BUFFERS * workers * states.host == pytest.approx(host, rel=1e-6)


def test_each_zero_stage_shards_one_state_more() -> None:
    stages = [model_states(stage, 4, frozen=1000, trained=100) for stage in range(4)]
    assert [states.optimizer for states in stages] == [1200, 300, 300, 300]
    assert [states.gradients for states in stages] == [600, 300, 150, 150]
    assert [states.weights for states in stages] == [2200, 2200, 2200, 550]


def test_frozen_weights_have_neither_gradients_nor_optimizer_state() -> None:
    memory = tuned(zero=0)
    adapter = LLAMA_8B.adapter_parameters(8, ["q_proj", "v_proj"])
    assert memory.weights == 2 * (LLAMA_8B.parameters + adapter)
    assert memory.gradients + memory.optimizer == 18 * adapter


def test_fp32_doubles_the_weights() -> None:
    assert tuned(precision="fp32").weights == 2 * tuned().weights


def test_a_micro_batch_that_is_not_given_is_the_workers_share() -> None:
    assert tuned(workers=4, micro_batch_size=None) == tuned(workers=4, micro_batch_size=8)


def test_packed_rows_have_a_mask_of_all_pairs_of_their_tokens() -> None:
    plain, packed = (tuned(micro_batch_size=4, max_length=2048, packing=packing) for packing in (False, True))
    assert packed.activations - plain.activations == (4 * 2048) ** 2
    assert packed.working_set - plain.working_set == 2 * (4 * 2048) ** 2


def test_frozen_weights_in_4_bits_are_a_quarter_but_for_the_embeddings() -> None:
    adapter = LLAMA_8B.adapter_parameters(8, ["q_proj", "v_proj"])
    linear = LLAMA_8B.parameters - 2 * LLAMA_8B.embedding - 65 * 4096
    kept = 2 * (LLAMA_8B.parameters - linear + adapter)
    assert tuned(quantize="nf4").weights - kept == pytest.approx(linear * (0.5 + 1 / 64 + 4 / 2**14), rel=1e-9)


def test_a_disk_takes_the_weights_from_the_host_and_leaves_buffers_there() -> None:
    def host(offload: Any) -> int:
        section = Finetune.model_validate({"data": ["lab-telecom"], "zero": 3, "offload": offload})
        return host_memory(LLAMA_70B, section, 8)

    embedding = 2 * LLAMA_70B.embedding // 8
    weights = 2 * (LLAMA_70B.parameters + LLAMA_70B.adapter_parameters(8, ["q_proj", "v_proj"])) // 8
    assert host("cpu") - host({"nvme": "/nvme"}) == pytest.approx(HOST_BUFFERS * weights - 5 * embedding, rel=1e-6)


@pytest.mark.parametrize(("checkpointing", "most"), [(True, 1.2), (False, 1.25)])
@pytest.mark.parametrize("examples", [1, 8])
def test_activations_agree_with_the_peak_that_pytorch_reaches(examples: int, checkpointing: bool, most: float) -> None:
    length, layers = 1024, 3
    shape = ModelShape(**vars(LLAMA_8B) | {"layers": layers})
    memory = tuned(shape, micro_batch_size=examples, max_length=length, gradient_checkpointing=checkpointing)
    traced = traced_peak(shape, examples, length, checkpointing)
    assert traced < memory.activations + memory.working_set < most * traced


def traced_peak(shape: ModelShape, examples: int, length: int, checkpointing: bool) -> int:
    """Bytes beside the weights at the peak of a backward pass through frozen layers, on tensors without contents."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from transformers import LlamaConfig, LlamaModel

    class Allocations(TorchDispatchMode):
        sizes: dict[int, int] = {}  # noqa: RUF012
        peak = 0

        def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = operation(*args, **(kwargs or {}))
            for storage in (one.untyped_storage() for one in tree_leaves(made) if isinstance(one, torch.Tensor)):
                if storage._cdata not in self.sizes:
                    self.sizes[storage._cdata] = storage.nbytes()
                    weakref.finalize(storage, self.sizes.pop, storage._cdata)
            self.peak = max(self.peak, sum(self.sizes.values()))
            return made

    config = LlamaConfig(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.intermediate,
        vocab_size=8,
    )
    with FakeTensorMode():
        model = LlamaModel._from_config(config, dtype=torch.bfloat16).requires_grad_(False).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        inputs = torch.zeros(examples, length, shape.hidden, dtype=torch.bfloat16, requires_grad=True)
        with Allocations() as allocations:
            allocations.sizes.update(dict.fromkeys(weights, 0))
            model(inputs_embeds=inputs, use_cache=False).last_hidden_state.sum().backward()
    return allocations.peak


def test_targets_that_the_model_lacks_are_refused() -> None:
    with pytest.raises(ModelError, match="query_key_value; known: q_proj"):
        tuned(lora={"targets": ["query_key_value"]})


def test_zero_3_lets_a_70b_model_onto_workers_that_could_not_hold_it() -> None:
    assert tuned(LLAMA_70B, workers=8, zero=2).certain > GPU > tuned(LLAMA_70B, workers=8, zero=3).total
