"""PEFT and this project read the same update from each other's folders."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from safecomm.defenses import DEFENSES, Adapter, Realignment, profile, safe_merge
from safecomm.defenses.moments import Moments

Update = Callable[[Adapter, str], Tensor]
SIZES: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),  # has biases in q, k and v
}


@pytest.fixture(params=sorted(MODELS))
def aligned(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    MODELS[request.param]().save_pretrained(tmp_path / "base")
    model = MODELS[request.param]()
    model.save_pretrained(tmp_path / "aligned", max_shard_size="30KB")
    return tmp_path / "aligned"


def load(folder: Path) -> PreTrainedModel:
    kind = LlamaForCausalLM if "llama" in (folder / "config.json").read_text() else Qwen2ForCausalLM
    return kind.from_pretrained(folder)


def train(aligned: Path, name: str, **settings: Any) -> tuple[Path, dict[str, Tensor]]:
    """Saves an adapter of random factors with PEFT; returns its folder and PEFT's own updates by module."""
    config = LoraConfig(**({"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj"]} | settings))
    model = get_peft_model(load(aligned), config)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "lora_" in key:
                weight.normal_()
    folder = aligned.parent / name
    model.save_pretrained(folder)
    return folder, peft_updates(model)


def peft_updates(model: PeftModel, adapter: str = "default") -> dict[str, Tensor]:
    layers = {key: layer for key, layer in model.base_model.model.named_modules() if hasattr(layer, "get_delta_weight")}
    return {key: layer.get_delta_weight(adapter).detach().double() for key, layer in layers.items()}


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert set(ours) == set(theirs)
    for name, expected in theirs.items():
        assert (ours[name] - expected).norm() <= 1e-6 * expected.norm(), name


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"v_proj": 2}, "alpha_pattern": {r"layers\.1\.self_attn\.q_proj": 5}},
        {"target_modules": "all-linear"},
    ],
)
def test_folders_are_interchangeable_with_peft(
    aligned: Path, update: Update, tmp_path: Path, settings: dict[str, Any]
) -> None:
    folder, expected = train(aligned, "finetuned", **settings)
    adapter = Adapter.load(folder)
    assert_same({name: update(adapter, name) for name in adapter.modules}, expected)
    adapter.save(tmp_path / "again")
    assert_same(peft_updates(PeftModel.from_pretrained(load(aligned), str(tmp_path / "again"))), expected)


@pytest.mark.parametrize("combine", ["cat", "linear", "ties"])
def test_merging_everything_equals_pefts_own_combination(aligned: Path, update: Update, combine: str) -> None:
    ours, _ = train(aligned, "finetuned")
    theirs, _ = train(aligned, "safe", lora_alpha=3)
    model = PeftModel.from_pretrained(load(aligned), str(ours), adapter_name="ours")
    model.load_adapter(str(theirs), "theirs")
    density = 0.5 if combine == "ties" else None
    model.add_weighted_adapter(["ours", "theirs"], [0.7, 0.3], "merged", combination_type=combine, density=density)
    made = profile(aligned.parent / "base", aligned, Adapter.load(ours))
    merged = safe_merge(made, Adapter.load(theirs), weight=0.7, combine=combine, density=density).adapter
    assert_same({name: update(merged, name) for name in merged.modules}, peft_updates(model, "merged"))


SETTINGS: dict[str, dict[str, Any]] = {
    "safe_lora": {"lowest": 5},
    "safe_merge": {"lowest": 5, "weight": 0.6},
    "drop": {"lowest": 5},
    "scale": {"factor": 0.5},
    "resta_instruct": {"alpha": 0.5, "rank": 3},
    "safe_delta": {"budget": 0.5},
}


@pytest.mark.parametrize("name", sorted(name for name, one in DEFENSES.items() if not one.trains))
def test_a_chain_from_sharded_weights_to_a_merged_model(
    aligned: Path, update: Update, tmp_path: Path, name: str
) -> None:
    folder, _ = train(aligned, "finetuned", target_modules="all-linear")
    safe = Adapter.load(train(aligned, "safe", r=2, target_modules="all-linear")[0])
    assert len(list(aligned.glob("*.safetensors"))) > 1
    adapter = Adapter.load(folder)
    for step in (name, "safe_lora"):
        made = profile(tmp_path / "base", aligned, adapter)
        inputs = {"adapter": adapter, "profile": made, "safe": safe, "base": tmp_path / "base", "aligned": aligned}
        inputs["moments"] = Moments(
            {str(size): torch.eye(size) for size in (32, 48)},
            {module: str(factors.shape[1]) for module, factors in adapter.modules.items()},
            "random",
        )
        defense = DEFENSES[step]
        assert issubclass(defense, Realignment)
        safer = defense.checked(SETTINGS[step]).apply(*(inputs[need] for need in defense.needs))
        assert len(safer.modules) == (5 if "lowest" in SETTINGS[step] else len(adapter.modules))
        adapter = safer.adapter
    safer.save(tmp_path / "safer")
    plain = load(aligned).state_dict()
    merged = PeftModel.from_pretrained(load(aligned), str(tmp_path / "safer")).merge_and_unload().state_dict()
    for module in adapter.modules:
        expected = plain[f"{module}.weight"].double() + update(adapter, module)
        assert (merged[f"{module}.weight"] - expected).norm() <= 1e-6 * expected.norm()
