"""Targets that PEFT does not train as linear modules are refused before anything runs."""

import json
from pathlib import Path
from typing import Any

import pytest

from safecomm.cluster.session import Resources
from safecomm.errors import ModelError
from safecomm.plan.plan import make_plan
from safecomm.plan.targets import EXPERT_MODULES, check_cpu_engine, check_targets
from safecomm.search.equivalence import EquivalentPoints
from safecomm.search.profile_cache import ProfileCache
from safecomm.spec import read_sweep

SWEEPS = Path(__file__).parents[2] / "sweeps"
SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "moe_intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "vocab_size": 32,
}


def rewritten(kind: str, target: str) -> bool:
    """Returns whether PEFT trains a parameter in place of a target, or finds no module of that name."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SIZES))
        try:
            adapted = get_peft_model(model, LoraConfig(target_modules=[target], task_type="CAUSAL_LM"))
        except ValueError:
            return True
    return bool(adapted.peft_config["default"].target_parameters)


@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe", "qwen3_moe", "olmoe"])
def test_every_target_that_peft_rewrites_is_refused_and_attention_is_not(kind: str, tmp_path: Path) -> None:
    from transformers import AutoConfig

    AutoConfig.for_model(kind, **SIZES).save_pretrained(tmp_path)
    attention = ["q_proj", "k_proj", "v_proj", "o_proj"]
    assert not any(rewritten(kind, target) for target in attention)
    check_targets(str(tmp_path), attention)
    refused = [target for target in EXPERT_MODULES if rewritten(kind, target)]
    assert "gate" in refused
    for target in refused:
        with pytest.raises(ModelError, match=rf"finetune\.lora\.targets: {target}: .* mixture of experts \({kind}\)"):
            check_targets(str(tmp_path), ["q_proj", target])


def test_a_dense_model_takes_every_target_and_an_unknown_one_is_left_to_the_run(lab: dict[str, Path]) -> None:
    check_targets(str(lab["aligned"]), ["gate_proj", "down_proj"])
    check_targets("nobody/unknown", ["gate_proj"])


def test_a_plan_refuses_experts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3_moe", "num_experts": 8}))
    overrides = [f"model.aligned={tmp_path}", "finetune.lora.targets=[q_proj, up_proj]"]
    sweep = read_sweep(SWEEPS / "lab.yaml", overrides)
    with pytest.raises(ModelError, match=r"up_proj: .* mixture of experts"):
        make_plan(sweep, Resources(2, 0), EquivalentPoints(sweep, ProfileCache(sweep)))


def test_a_mixture_of_experts_is_not_served_by_vllm_on_cpus(tmp_path: Path, lab: dict[str, Path]) -> None:
    """Its engine died of the first prompt: vLLM's CPU build has no `topk_softmax`."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mixtral", "num_local_experts": 8}))
    with pytest.raises(ModelError, match=r"mixture of experts \(mixtral\), which vLLM's CPU build can't serve"):
        check_cpu_engine(str(tmp_path), "vllm")
    check_cpu_engine(str(tmp_path), "transformers")
    check_cpu_engine(str(lab["aligned"]), "vllm")
