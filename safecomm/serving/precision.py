"""Numeric precision on CPUs, for the lab's training and for engines without a GPU."""

from typing import Any


def has_native_bf16() -> bool:
    """Returns whether the CPU has bfloat16 instructions. Without them bfloat16 is 13x slower than float32."""
    import torch

    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def cpu_dtype(stored: Any) -> Any:
    """Returns the torch dtype for running a model on a CPU.

    This is the checkpoint's dtype, or float32 if the CPU would have to emulate half precision.

    Args:
        stored: the checkpoint's torch dtype, or None if its configuration has none.
    """
    import torch

    return stored if stored is not None and has_native_bf16() else torch.float32
