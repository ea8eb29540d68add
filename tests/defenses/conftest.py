"""Small checkpoints and adapters in the usual formats."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from safecomm.defenses.adapter import Adapter, Factors

CONFIG = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "r": 4,
    "lora_alpha": 8,
    "target_modules": ["q_proj", "v_proj"],
}
SHAPES = {"model.layers.0.self_attn.q_proj": (16, 16), "model.layers.0.self_attn.v_proj": (8, 16)}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Writes a checkpoint folder of the given or of random weights."""

    def write(name: str, weights: Mapping[str, Tensor] | None = None) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        weights = weights or {module: torch.randn(shape) for module, shape in SHAPES.items()}
        save_file({f"{module}.weight": weight for module, weight in weights.items()}, folder / "model.safetensors")
        return folder

    return write


@pytest.fixture
def adapter_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes a PEFT folder; settings replace those of its configuration, tensors are added to its weights."""

    def write(name: str = "adapter", tensors: Mapping[str, Tensor] | None = None, **settings: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        own = {}
        for module, (d_out, d_in) in SHAPES.items():
            own[f"base_model.model.{module}.lora_A.weight"] = torch.randn(4, d_in)
            own[f"base_model.model.{module}.lora_B.weight"] = torch.randn(d_out, 4)
        save_file({**own, **(tensors or {})}, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps(CONFIG | settings))
        return folder

    return write


@pytest.fixture
def make_adapter() -> Callable[..., Adapter]:
    """Makes an adapter of random factors."""

    def make(ranks: Mapping[str, int] | int = 4, scaling: float = 2.0, dtype: torch.dtype = torch.float32) -> Adapter:
        modules = {}
        for module, (d_out, d_in) in SHAPES.items():
            rank = ranks if isinstance(ranks, int) else ranks[module]
            A, B = torch.randn(rank, d_in).to(dtype), torch.randn(d_out, rank).to(dtype)
            modules[module] = Factors(A, B, scaling)
        return Adapter(modules, CONFIG, "random adapter")

    return make


@pytest.fixture
def update() -> Callable[[Adapter, str], Tensor]:
    """Returns a module's dense update in float64."""

    def dense(adapter: Adapter, name: str) -> Tensor:
        A, B, scaling = adapter.modules[name]
        return scaling * B.double() @ A.double()

    return dense


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
