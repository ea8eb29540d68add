"""The precision that this machine's processor computes in: of the lab's training, and of engines without a GPU."""

from typing import Any


def has_native_bf16() -> bool:
    """Whether the processor has bfloat16 instructions. Without them bfloat16 is 13 x slower than float32."""
    import torch

    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def cpu_dtype(stored: Any) -> Any:
    """Returns the torch dtype in which to run a model on a CPU.

    That of the checkpoint, but float32 in place of half precision that the processor would only emulate.

    Args:
        stored: the checkpoint's torch dtype, or None where its configuration has none.
    """
    import torch

    return stored if stored is not None and has_native_bf16() else torch.float32
