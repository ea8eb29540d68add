"""What the fleet needs of each GPU, from the model's shape and the sweep alone.

Weights, adapters and KV cache are counted. Activations are modelled on what vLLM 0.29 keeps; its steps and all overhead
are read from its code and were measured on no GPU.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from safecomm.plan.shapes import ATTENTION_INPUTS, HALF, MLP_INPUTS, ModelShape
from safecomm.serving.lora_slots import served_rank, slots_within
from safecomm.spec.sweep import Replicas

GIB = 1 << 30
SINGLE = 4
"""Bytes of an fp32 number."""
GPU_UTILIZATION = 0.92
"""Share of a GPU that vLLM takes (its default of `gpu_memory_utilization`)."""
SERVING_OVERHEAD = 3 * GIB // 2
"""CUDA's context, NCCL's buffers and CUDA graphs."""
LARGE_GPU = 70 * GIB
"""From this size on vLLM takes the larger steps (but for the A100, where what is said here is too much by half)."""


class Parts:
    """Bytes on one GPU, by what they are for."""

    @property
    def parts(self) -> dict[str, int]:
        """Part -> bytes."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    @property
    def total(self) -> int:
        """Sum of the parts."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class FleetMemory(Parts):
    """One GPU of a vLLM engine, the fullest where it has several."""

    weights: int
    lora_slots: int
    """Room for the adapters of one batch, taken whether they are there or not."""
    working_set: int
    """A step's activations and logits. Estimate."""
    sequence: int
    """The KV cache of one text of `max_model_len` tokens, the least that vLLM starts with."""
    overhead: int
    """Estimate."""

    @property
    def certain(self) -> int:
        """What can't be less."""
        return self.weights + self.lora_slots + self.sequence

    def sequences(self, gpu_bytes: int) -> int:
        """Texts of `max_model_len` tokens whose KV cache fits into what vLLM takes of a GPU: how many run at a time.

        Shorter ones are more.
        """
        return max(0, served(gpu_bytes) - self.total + self.sequence) // self.sequence


@dataclass(frozen=True)
class Serving:
    """What one engine of a fleet serves, and how it is split."""

    shape: ModelShape
    """The served model's."""
    size: Replicas
    """`cluster.target` or `cluster.judge`."""
    max_model_len: int
    """Tokens of the longest prompt and answer."""
    lora_rank: int = 0
    """The largest rank of an adapter; 0 where none is served."""
    targets: Sequence[str] = ()
    """The linear modules that adapters touch."""


def fleet_memory(serving: Serving, gpu_bytes: int) -> FleetMemory:
    """Returns what each GPU of an engine needs.

    Args:
        serving: the engine.
        gpu_bytes: memory of a GPU, by which vLLM chooses how much it does in a step.

    Raises:
        ModelError: when the adapters' targets are none of the model's linear modules.
        EvaluationError: for a rank that vLLM does not serve.
    """
    shape, size = serving.shape, serving.size
    tensor, pipeline = size.tensor_parallel, size.pipeline_parallel
    layers = -(-shape.layers // pipeline)
    # vLLM has a copy of each key-value head where there are fewer of them than GPUs.
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
    """Bytes that vLLM takes of a GPU."""
    return int(GPU_UTILIZATION * gpu_bytes)


def _served_parameters(shape: ModelShape, layers: int, size: Replicas, kv_share: float) -> int:
    """Parameters on one GPU; of several pipeline stages the first and the last hold an embedding each."""
    shares = dict.fromkeys(shape.linear, 1 / size.tensor_parallel) | {"k_proj": kv_share, "v_proj": kv_share}
    layer = sum(d_out * d_in * shares[name] for name, (d_out, d_in) in shape.linear.items()) + shape.layer_vectors
    ends = 1 if shape.tied or size.pipeline_parallel > 1 else 2
    return int(layers * layer + ends * shape.embedding / size.tensor_parallel) + shape.hidden


def _slot_parameters(shape: ModelShape, rank: int, targets: list[str], tensor: int, kv_share: float) -> int:
    """Parameters of one adapter's place in a layer, on one GPU.

    vLLM fuses q, k, v and gate, up: an adapter on one of them takes the place of all. Modules that are split by their
    outputs have B split and A whole, those split by their inputs the reverse.
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
    """Bytes of a step of vLLM at the sizes that it chooses: a batch's tokens in a layer, and logits in fp32 twice."""
    tokens, sequences = (16_384, 1024) if large else (8192, 256)
    layer = HALF * tokens * (4 * shape.hidden + 3 * shape.intermediate // tensor)
    return layer + sequences * shape.vocabulary * (HALF + 2 * SINGLE)
