"""Refuses what can't be done with a mixture-of-experts model: adapters on its experts, and vLLM on CPUs."""

from collections.abc import Sequence
from typing import Any

from safecomm.errors import ModelError
from safecomm.plan.shapes import find_config

EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
"""The fields of a `config.json` with the number of experts per layer."""
EXPERT_MODULES = ("gate", "w1", "w2", "w3", "gate_proj", "up_proj", "down_proj")
"""Modules of experts and routers. transformers 5 fuses experts into one parameter per layer, so PEFT 0.21 trains
`target_parameters` instead of these modules, even if a model also has dense layers with the same module names."""


def check_targets(model: str, targets: Sequence[str]) -> None:
    """Checks that all targets are linear modules to PEFT; does nothing if the model's configuration is not local.

    Args:
        model: a folder or a Hub id.
        targets: `finetune.lora.targets`.

    Raises:
        ModelError: if a target is part of an expert.
    """
    config = _mixture(model)
    if not config:
        return
    if rejected := [target for target in targets if target.rpartition(".")[2] in EXPERT_MODULES]:
        raise ModelError(
            f"finetune.lora.targets: {', '.join(rejected)}: {model} is a mixture of experts "
            f"({config.get('model_type')}), whose experts can't be adapted; choose attention modules, e.g. q_proj"
        )


def check_cpu_engine(model: str, engine: str) -> None:
    """Checks that an engine can serve a model on CPUs; does nothing if the model's configuration is not available.

    Raises:
        ModelError: for a mixture of experts on vLLM, whose CPU build has no kernels for it.
    """
    if engine == "vllm" and (config := _mixture(model)):
        raise ModelError(
            f"model.aligned: {model} is a mixture of experts ({config.get('model_type')}), which vLLM's CPU build "
            "can't serve; set evaluate.engine: transformers, or use GPUs (in a plan: --gpus N)"
        )


def _mixture(model: str) -> dict[str, Any]:
    """Returns the configuration of a mixture-of-experts model; empty for others, or if it is not available locally."""
    config = find_config(model)
    return config if config and any((config.get("text_config") or config).get(key) for key in EXPERTS) else {}
