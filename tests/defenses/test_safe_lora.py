"""SafeLoRA projects the selected modules and leaves the others alone."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from safecomm.defenses import DEFENSES
from safecomm.defenses.adapter import Adapter
from safecomm.defenses.alignment import profile
from safecomm.defenses.safe_lora import safe_lora
from safecomm.defenses.weights import Weights
from safecomm.errors import ModelError

Q, V = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"
Checkpoints = Callable[..., Path]
Adapters = Callable[..., Adapter]
Update = Callable[[Adapter, str], Tensor]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1.0, 1e-6])
def test_selected_updates_are_multiplied_with_c(
    checkpoint: Checkpoints, make_adapter: Adapters, update: Update, dtype: torch.dtype, size: float
) -> None:
    weights = {Q: torch.zeros(16, 16), V: torch.zeros(8, 16)}
    shifted = {name: size * torch.randn_like(weight) for name, weight in weights.items()}
    base, aligned = checkpoint("base", weights), checkpoint("aligned", shifted)
    adapter = make_adapter(dtype=dtype)
    safer = safe_lora(adapter, profile(base, aligned, adapter), [V])
    difference = Weights(aligned).tensor(V).double()
    dense = difference @ difference.T / difference.norm() @ update(adapter, V)
    assert (update(safer, V) - dense).norm() / dense.norm() <= (
        1e-5 if dtype != torch.bfloat16 else torch.finfo(dtype).eps
    )
    assert safer.modules[Q] is adapter.modules[Q]
    assert safer.modules[V].A is adapter.modules[V].A


def test_a_step_selects_up_to_and_with_its_threshold(checkpoint: Checkpoints, make_adapter: Adapters) -> None:
    adapter = make_adapter()
    made = profile(checkpoint("base"), checkpoint("aligned"), adapter)
    lowest = min(made.modules, key=lambda row: row.rho)
    safer, acted = DEFENSES["safe_lora"](adapter, made, {"threshold": round(lowest.rho, 5)}, None)
    assert acted == [lowest.name]
    assert safer.modules[lowest.name].B.equal(made.projected[lowest.name])


def test_selecting_nothing_gives_the_same_adapter(checkpoint: Checkpoints, make_adapter: Adapters) -> None:
    adapter = make_adapter()
    safer, acted = DEFENSES["safe_lora"](
        adapter, profile(checkpoint("a"), checkpoint("b"), adapter), {"lowest": 0}, None
    )
    assert acted == [] and safer.digest() == adapter.digest()


def test_the_profile_of_another_adapter_is_refused(checkpoint: Checkpoints, make_adapter: Adapters) -> None:
    adapter = make_adapter()
    made = profile(checkpoint("a"), checkpoint("b"), adapter)
    with pytest.raises(ModelError, match="profile is that of another adapter"):
        safe_lora(safe_lora(adapter, made, [Q]), made, [V])
