"""Serves one adapter through vLLM's OpenAI-compatible server, for tools that attack or chat with a model."""

import os
import sys
from pathlib import Path
from typing import Any

from safecomm.defenses.adapter import Adapter
from safecomm.serving.engine import EngineSettings
from safecomm.serving.vllm_engine import engine_arguments
from safecomm.statistics.selection import module_type

KEY = "VLLM_API_KEY"
"""Where vLLM reads the token from; on the command line every user of the machine could read it."""


def server_command(
    name: str, model: Path, adapter: Path | None, settings: EngineSettings, host: str, port: int
) -> list[str]:
    """Returns the command that runs the server; also sets environment variables that it needs.

    Args:
        name: the name by which clients address the model.
        model: the aligned model.
        adapter: the adapter; None to serve the model itself.
        settings: the engine's settings, as in a sweep, so that answers are the same.
        host: the address to listen on.
        port: the port to listen on.
    """
    arguments = engine_arguments(str(model), settings)
    served = ["--served-model-name", f"{name}-base" if adapter else name]
    lora = ["--lora-modules", f"{name}={adapter}"] if adapter else []
    # Otherwise vLLM samples as the model's generation_config.json says, and a sweep does not.
    fixed = ["--generation-config", "vllm", "--host", host, "--port", str(port)]
    # Not the command `vllm serve`, which does not find the package under the name of its CPU build.
    program = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    return [*program, *served, *lora, *fixed, *_flags(arguments)]


def settings_for(adapter: Path | None, max_new_tokens: int, max_model_len: int) -> EngineSettings:
    """Returns the settings of an engine for one adapter, on a GPU if there is one."""
    import torch

    modules = Adapter.load(adapter).modules if adapter else {}
    return EngineSettings(
        max_new_tokens=max_new_tokens,
        max_model_len=max_model_len,
        max_lora_rank=max((factors.A.shape[0] for factors in modules.values()), default=0),
        lora_targets=tuple(sorted({module_type(name) for name in modules})),
        on_gpu=torch.cuda.is_available(),
        sampled=True,  # clients may
    )


def server_environment(token: str) -> dict[str, str]:
    """Returns the server's environment with the token that clients must send."""
    return os.environ | {KEY: token}


def _flags(arguments: dict[str, Any]) -> list[str]:
    flags = []
    for name, value in arguments.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            flags.append(flag if value else f"--no-{name.replace('_', '-')}")
        elif isinstance(value, list | tuple):
            flags += [flag, *map(str, value)]
        elif value is not None:
            flags += [flag, str(value).removeprefix("torch.")]  # a dtype
    return flags
