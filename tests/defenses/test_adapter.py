"""Adapters load with PEFT's scaling, other types are rejected by name, and saved adapters suit PEFT and vLLM."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from safecomm.defenses.adapter import Adapter
from safecomm.errors import ModelError

Q, V = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"
PREFIX = "base_model.model."
Folders = Callable[..., Path]
Adapters = Callable[..., Adapter]
Update = Callable[[Adapter, str], Tensor]


def test_scaling_is_alpha_over_rank(adapter_folder: Folders) -> None:
    assert Adapter.load(adapter_folder()).modules[Q].scaling == 2.0


def test_scaling_of_rslora_is_alpha_over_root_of_rank(adapter_folder: Folders) -> None:
    assert Adapter.load(adapter_folder(use_rslora=True)).modules[Q].scaling == 8 / math.sqrt(4)


def test_scaling_honours_patterns_as_peft_matches_them(adapter_folder: Folders) -> None:
    other = {f"{PREFIX}{V}.lora_A.weight": torch.randn(2, 16), f"{PREFIX}{V}.lora_B.weight": torch.randn(8, 2)}
    folder = adapter_folder(tensors=other, rank_pattern={"v_proj": 2}, alpha_pattern={r"layers\.0\..*q_proj": 3})
    modules = Adapter.load(folder).modules
    assert (modules[Q].scaling, modules[V].scaling) == (3 / 4, 8 / 2)


def test_modules_are_in_layer_order(adapter_folder: Folders) -> None:
    tensors = {}
    for layer in (10, 9):
        tensors[f"{PREFIX}model.layers.{layer}.self_attn.q_proj.lora_A.weight"] = torch.randn(4, 16)
        tensors[f"{PREFIX}model.layers.{layer}.self_attn.q_proj.lora_B.weight"] = torch.randn(16, 4)
    layers = [name.split(".")[2] for name in Adapter.load(adapter_folder(tensors=tensors)).modules]
    assert layers == ["0", "0", "9", "10"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saving_different_ranks_and_scalings_keeps_every_update(
    make_adapter: Adapters, update: Update, tmp_path: Path, dtype: torch.dtype
) -> None:
    adapter = make_adapter({Q: 6, V: 2}, dtype=dtype)
    adapter = replace(adapter, modules={**adapter.modules, V: adapter.modules[V]._replace(scaling=3.0)})
    adapter.save(tmp_path)
    loaded = Adapter.load(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["rank_pattern"], config["use_rslora"]) == (6, 6, {}, False)
    for name in adapter.modules:
        assert loaded.modules[name].B.dtype == dtype
        error = (update(loaded, name) - update(adapter, name)).norm() / update(adapter, name).norm()
        assert error <= 2 * torch.finfo(dtype).eps


def test_saving_one_rank_and_scaling_keeps_the_factors_themselves(make_adapter: Adapters, tmp_path: Path) -> None:
    adapter = make_adapter(4, scaling=16 / 3)
    adapter.save(tmp_path)
    for name, loaded in Adapter.load(tmp_path).modules.items():
        assert loaded.A.equal(adapter.modules[name].A) and loaded.B.equal(adapter.modules[name].B)
        assert loaded.scaling == pytest.approx(16 / 3, rel=1e-15)


@pytest.mark.parametrize("ranks", [5, {Q: 5, V: 2}])
@pytest.mark.parametrize("scaling", [2.0, 16 / 3, 8 / math.sqrt(5)])  # the last is no float times 5 over 5
def test_digest_survives_saving(
    make_adapter: Adapters, tmp_path: Path, ranks: int | dict[str, int], scaling: float
) -> None:
    adapter = make_adapter(ranks, scaling)
    adapter.save(tmp_path)
    assert Adapter.load(tmp_path).digest() == adapter.digest()
    assert len(adapter.digest()) == 16


def test_digest_depends_on_weights_scaling_and_names(make_adapter: Adapters) -> None:
    adapter = make_adapter()
    nudged = adapter.modules[V].B.clone()
    nudged[0, 0] += 1e-6
    changed = [
        replace(adapter, modules={**adapter.modules, V: adapter.modules[V]._replace(B=nudged)}),
        replace(adapter, modules={name: factors._replace(scaling=1.0) for name, factors in adapter.modules.items()}),
        replace(adapter, modules={Q: adapter.modules[Q], "other": adapter.modules[V]}),
    ]
    assert len({adapter.digest(), *(other.digest() for other in changed)}) == 4
    assert replace(adapter, config={}, source="elsewhere").digest() == adapter.digest()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"lora_bias": True}, "lora_bias"),
        ({"bias": "all"}, "bias=all"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4"),
        ({"r": 8}, "has rank 4, but adapter_config.json says 8"),
        ({"lora_alpha": None}, "r and lora_alpha must be numbers"),
    ],
)
def test_other_adapter_types_are_rejected_by_name(
    adapter_folder: Folders, settings: dict[str, object], said: str
) -> None:
    folder = adapter_folder(**settings)
    with pytest.raises(ModelError, match=said) as caught:
        Adapter.load(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("model.embed_tokens.lora_embedding_A", "embedding"),
        (f"{Q}.lora_magnitude_vector.weight", "not a LoRA factor"),
        ("lm_head.weight", "not a LoRA factor"),
        ("model.layers.1.self_attn.q_proj.lora_A.weight", "not the other factor"),
    ],
)
def test_other_tensors_are_rejected_by_name(adapter_folder: Folders, key: str, said: str) -> None:
    folder = adapter_folder(tensors={f"{PREFIX}{key}": torch.randn(4, 16)})
    with pytest.raises(ModelError, match=said) as caught:
        Adapter.load(folder)
    assert key.removesuffix(".lora_A.weight") in str(caught.value)


def test_pickled_weights_are_rejected_with_a_conversion_hint(adapter_folder: Folders) -> None:
    folder = adapter_folder()
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"adapter_model\.bin.*save_pretrained"):
        Adapter.load(folder)


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "adapter_config.json"])
def test_missing_and_truncated_files_are_named(adapter_folder: Folders, file: str) -> None:
    folder = adapter_folder()
    (folder / file).write_bytes((folder / file).read_bytes()[:-20])
    with pytest.raises(ModelError, match=file):
        Adapter.load(folder)
    (folder / file).unlink()
    with pytest.raises(ModelError, match=file):
        Adapter.load(folder)


def test_loaded_adapter_survives_overwriting_its_file(adapter_folder: Folders) -> None:
    folder = adapter_folder()
    adapter = Adapter.load(folder)
    before = adapter.modules[Q].A.clone()
    file = folder / "adapter_model.safetensors"
    file.write_bytes(bytes(file.stat().st_size))
    assert adapter.modules[Q].A.equal(before)


def test_check_names_the_broken_module(make_adapter: Adapters) -> None:
    adapter = make_adapter()
    adapter.check()
    adapter.modules[V].B[0, 0] = math.nan
    with pytest.raises(ModelError, match=rf"random adapter: {V} has non-finite values"):
        adapter.check()


def test_empty_and_untrained_adapters_are_rejected(make_adapter: Adapters) -> None:
    adapter = make_adapter()
    with pytest.raises(ModelError, match="has no LoRA weights"):
        replace(adapter, modules={}).check()
    zero = {name: factors._replace(B=torch.zeros_like(factors.B)) for name, factors in adapter.modules.items()}
    dropped = replace(adapter, modules=zero)
    dropped.check()  # what dropping every module leaves is a valid adapter
    with pytest.raises(ModelError, match="every lora_B is zero"):
        dropped.check_trained()
