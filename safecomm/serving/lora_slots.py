"""The number of adapters that one vLLM engine holds at once, given a small share of memory."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from safecomm.errors import EvaluationError, ModelError
from safecomm.serving.engine import EngineSettings
from safecomm.statistics.selection import module_type

if TYPE_CHECKING:
    from safecomm.defenses.weights import Weights

LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM accepts for `max_lora_rank`."""
GPU_SHARE = 0.05
"""Share of GPU memory for adapters; the rest is for weights and KV cache."""
CPU_BYTES = 1 << 30
"""Memory for adapters without a GPU."""
MAX_ON_GPU = 16
MAX_ON_CPU = 8
DEFAULT_SLOTS = 4
PACKED = (frozenset({"q_proj", "k_proj", "v_proj"}), frozenset({"gate_proj", "up_proj"}))
"""Modules that vLLM fuses into one layer; an adapter on one of them allocates slots for all."""


def served_rank(rank: int) -> int:
    """Returns the smallest `max_lora_rank` of vLLM that serves adapters up to `rank`.

    Raises:
        EvaluationError: if `rank` exceeds the largest supported rank.
    """
    if rank > LORA_RANKS[-1]:
        raise EvaluationError(
            f"vLLM serves adapters up to rank {LORA_RANKS[-1]}, but this sweep can create one of rank {rank}; lower "
            "finetune.lora.r or merge with `combine: linear`"
        )
    return next(one for one in LORA_RANKS if one >= rank)


def adapters_at_once(
    shapes: Iterable[tuple[int, ...]], rank: int, itemsize: int, settings: EngineSettings, gpu_bytes: int | None
) -> int:
    """Returns how many adapters fit into the memory reserved for them: 1 to 16 on a GPU, 1 to 8 on a CPU.

    vLLM stores the factors A and B of a module in the model's dtype, padded to the largest rank: rank x (d_in + d_out)
    numbers. With tensor parallelism one of the two factors is sharded and the other replicated; which one depends on
    the layer, so the larger is assumed to be replicated.

    Args:
        shapes: d_out x d_in of every module with slots.
        rank: vLLM's `max_lora_rank`.
        itemsize: bytes per parameter.
        settings: the engine's parallelism.
        gpu_bytes: total memory of one GPU; None without a GPU.
    """
    held = sum(max(shape) + min(shape) / settings.tensor_parallel for shape in shapes)
    slot = rank * held * itemsize / settings.pipeline_parallel
    return slots_within(slot, gpu_bytes)


def slots_within(slot: float, gpu_bytes: int | None) -> int:
    """Returns how many slots of a given size in bytes fit into the memory reserved for adapters."""
    budget, most = (CPU_BYTES, MAX_ON_CPU) if gpu_bytes is None else (GPU_SHARE * gpu_bytes, MAX_ON_GPU)
    return min(most, max(1, int(budget / slot)))


def lora_arguments(model: Path, settings: EngineSettings, gpu_bytes: int | None) -> dict[str, object]:
    """Returns vLLM's LoRA arguments; empty if no adapters will be used."""
    if not settings.max_lora_rank:
        return {}
    rank = served_rank(settings.max_lora_rank)
    from safecomm.defenses.weights import Weights  # imports torch, which planning does not need

    try:
        shapes, itemsize = _modules(Weights(model), set(settings.lora_targets))
        at_once = adapters_at_once(shapes, rank, itemsize, settings, gpu_bytes)
    except ModelError:  # a quantized checkpoint, which vLLM can still serve
        at_once = DEFAULT_SLOTS
    return {
        "enable_lora": True,
        "max_lora_rank": rank,
        "max_loras": at_once,
        # Also excludes the output head: with LoRA there, vLLM can't return prompt log-probabilities.
        "lora_target_modules": list(settings.lora_targets),
    }


def _modules(weights: "Weights", targets: set[str]) -> tuple[list[tuple[int, ...]], int]:
    """Returns the shapes of the modules with slots and the bytes per parameter, from the checkpoint's headers."""
    packed = {kind for group in PACKED if group & targets for kind in group}
    there = {module_type(name.removesuffix(".weight")) for name in weights.files}
    names = weights.modules(targets | packed & there)
    return [weights.shape(name) for name in names], weights.tensor(names[0]).dtype.itemsize
