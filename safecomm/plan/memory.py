"""Estimates the GPU memory of an engine from the model's shape and the sweep.

Weights, adapters and KV cache are exact. Activations are modelled on vLLM 0.29; step sizes and overhead are taken from
its source code and have not been measured on a GPU.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from safecomm.plan.shapes import ATTENTION_INPUTS, HALF, MLP_INPUTS, ModelShape
from safecomm.serving.lora_slots import served_rank, slots_within
from safecomm.spec.cluster import Replicas

GIB = 1 << 30
SINGLE = 4
"""Bytes of an fp32 number."""
GPU_UTILIZATION = 0.92
"""Share of GPU memory that vLLM uses (its default `gpu_memory_utilization`)."""
SERVING_OVERHEAD = 3 * GIB // 2
"""CUDA context, NCCL buffers and CUDA graphs."""
LARGE_GPU = 70 * GIB
"""vLLM uses larger steps on GPUs of this size or more (except the A100, for which this overestimates by half)."""


class Parts:
    """Bytes on one GPU, by purpose."""

    @property
    def parts(self) -> dict[str, int]:
        """Part -> bytes."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    @property
    def total(self) -> int:
        """The sum of the parts."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class FleetMemory(Parts):
    """One GPU of a vLLM engine; with pipeline parallelism the fullest one."""

    weights: int
    lora_slots: int
    """Slots for the adapters of one batch, allocated in advance."""
    working_set: int
    """Activations and logits of one step. Estimate."""
    sequence: int
    """KV cache of one sequence of `max_model_len` tokens, the minimum for vLLM to start."""
    overhead: int
    """Estimate."""

    @property
    def certain(self) -> int:
        """The lower bound."""
        return self.weights + self.lora_slots + self.sequence

    def sequences(self, gpu_bytes: int) -> int:
        """Returns how many sequences of `max_model_len` tokens run concurrently; more if they are shorter."""
        return max(0, served(gpu_bytes) - self.total + self.sequence) // self.sequence


@dataclass(frozen=True)
class Serving:
    """The model and parallelism of one engine."""

    shape: ModelShape
    """The model's shape."""
    size: Replicas
    """`cluster.target` or `cluster.judge`."""
    max_model_len: int
    """Maximum tokens of prompt and answer together."""
    lora_rank: int = 0
    """The largest adapter rank; 0 if no adapters are served."""
    targets: Sequence[str] = ()
    """The linear modules that adapters change."""


def fleet_memory(serving: Serving, gpu_bytes: int) -> FleetMemory:
    """Returns the memory that each GPU of an engine needs.

    Args:
        serving: the engine.
        gpu_bytes: memory of a GPU, from which vLLM derives its step size.

    Raises:
        ModelError: if an adapter target is not a linear module of the model.
        EvaluationError: if vLLM does not support the rank.
    """
    shape, size = serving.shape, serving.size
    tensor, pipeline = size.tensor_parallel, size.pipeline_parallel
    layers = -(-shape.layers // pipeline)
    # vLLM replicates key-value heads if there are fewer heads than GPUs.
    kv_share = max(1, shape.kv_heads // tensor) / shape.kv_heads
    slot = 0
    if serving.lora_rank:
        rank = served_rank(serving.lora_rank)
        slot = HALF * layers * _slot_parameters(shape, rank, list(serving.targets), tensor, kv_share)
    return FleetMemory(
        weights=HALF * _served_parameters(shape, layers, size, kv_share),
        lora_slots=slot * slots_within(slot, gpu_bytes) if slot else 0,
        working_set=_step_bytes(shape, tensor, large=gpu_bytes >= LARGE_GPU),
        sequence=int(serving.max_model_len * shape.kv_bytes / shape.layers * layers * kv_share),
        overhead=SERVING_OVERHEAD,
    )


def served(gpu_bytes: int) -> int:
    """Returns the bytes that vLLM uses on a GPU."""
    return int(GPU_UTILIZATION * gpu_bytes)


def _served_parameters(shape: ModelShape, layers: int, size: Replicas, kv_share: float) -> int:
    """Returns the parameters on one GPU; the first and the last pipeline stage each hold one embedding matrix."""
    shares = dict.fromkeys(shape.linear, 1 / size.tensor_parallel) | {"k_proj": kv_share, "v_proj": kv_share}
    layer = sum(d_out * d_in * shares[name] for name, (d_out, d_in) in shape.linear.items()) + shape.layer_vectors
    ends = 1 if shape.tied or size.pipeline_parallel > 1 else 2
    return int(layers * layer + ends * shape.embedding / size.tensor_parallel) + shape.hidden


def _slot_parameters(shape: ModelShape, rank: int, targets: list[str], tensor: int, kv_share: float) -> int:
    """Returns the parameters of one adapter slot on one GPU.

    vLLM fuses q, k, v and gate, up: an adapter on one of them allocates slots for all. Column-parallel modules shard B
    and replicate A; row-parallel modules do the opposite.
    """
    named = set(shape.modules(targets))
    for fused in (ATTENTION_INPUTS, MLP_INPUTS):
        named |= set(fused) if named & set(fused) else set()
    shares = dict.fromkeys(shape.linear, 1 / tensor) | {"k_proj": kv_share, "v_proj": kv_share}
    numbers = 0.0
    for name in named:
        d_out, d_in = shape.linear[name]
        by_outputs = name in ATTENTION_INPUTS + MLP_INPUTS
        numbers += d_in + d_out * shares[name] if by_outputs else d_in * shares[name] + d_out
    return int(rank * numbers)


def _step_bytes(shape: ModelShape, tensor: int, *, large: bool) -> int:
    """Returns the bytes of one vLLM step: the batch's activations in one layer, and two fp32 copies of the logits."""
    tokens, sequences = (16_384, 1024) if large else (8192, 256)
    layer = HALF * tokens * (4 * shape.hidden + 3 * shape.intermediate // tensor)
    return layer + sequences * shape.vocabulary * (HALF + 2 * SINGLE)
