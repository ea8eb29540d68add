"""The control defenses match their formulas."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from safecomm.defenses import Adapter, drop, profile, resta_instruct, scale
from safecomm.defenses.weights import Weights
from safecomm.errors import DefenseError, ModelError

Q, V = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"
Checkpoints = Callable[..., Path]
Adapters = Callable[..., Adapter]
Update = Callable[[Adapter, str], Tensor]


def test_drop_removes_the_update_of_the_selected_modules(
    checkpoint: Checkpoints, make_adapter: Adapters, update: Update, tmp_path: Path
) -> None:
    adapter = make_adapter()
    made = profile(checkpoint("a"), checkpoint("b"), adapter)
    dropped = drop(made, lowest={"v_proj": 1})
    assert dropped.modules == [V]
    assert not update(dropped.adapter, V).any() and dropped.adapter.modules[Q] is adapter.modules[Q]
    drop(made, quantile=1).save(tmp_path / "nothing-left")
    assert not any(update(Adapter.load(tmp_path / "nothing-left"), name).any() for name in (Q, V))


@given(factor=st.floats(0, 10), rank=st.integers(1, 6))
def test_scale_multiplies_the_update(factor: float, rank: int) -> None:
    from safecomm.defenses.adapter import Factors

    own = Factors(torch.randn(rank, 5), torch.randn(7, rank), 2.0)
    scaled = scale(Adapter({Q: own}, {}, "random"), factor=factor).adapter.modules[Q]
    expected = factor * 2.0 * own.B.double() @ own.A.double()
    assert torch.allclose(scaled.scaling * scaled.B.double() @ scaled.A.double(), expected, atol=1e-12)


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0])
def test_a_scaled_adapter_survives_saving(
    make_adapter: Adapters, update: Update, tmp_path: Path, factor: float
) -> None:
    adapter = make_adapter()
    scale(adapter, factor=factor).save(tmp_path / "scaled")
    saved = Adapter.load(tmp_path / "scaled")
    assert torch.allclose(update(saved, Q), factor * update(adapter, Q))


@pytest.mark.parametrize("transposed", [False, True])
def test_resta_adds_the_alignment(
    checkpoint: Checkpoints, make_adapter: Adapters, update: Update, transposed: bool
) -> None:
    shapes = {Q: (16, 16), V: (16, 8) if transposed else (8, 16)}
    base, aligned = (checkpoint(name, {key: torch.randn(shape) for key, shape in shapes.items()}) for name in "ab")
    adapter = make_adapter()
    adapter = Adapter(adapter.modules, {**adapter.config, "fan_in_fan_out": transposed}, "random")
    made = resta_instruct(adapter, base, aligned, alpha=0.5, rank=16)
    for name in (Q, V):
        alignment = (Weights(aligned).tensor(name) - Weights(base).tensor(name)).double()
        expected = update(adapter, name) + 0.5 * (alignment.T if transposed else alignment)
        assert (update(made.adapter, name) - expected).norm() <= 1e-5 * expected.norm()
    one = resta_instruct(adapter, base, aligned, alpha=0.5, rank=1).adapter
    assert torch.linalg.matrix_rank(update(one, Q) - update(adapter, Q), rtol=1e-4) == 1


def test_invalid_settings_are_rejected(checkpoint: Checkpoints, make_adapter: Adapters) -> None:
    base, aligned = checkpoint("a"), checkpoint("b")
    for factor in (-1.0, float("nan")):
        with pytest.raises(DefenseError):
            scale(make_adapter(), factor=factor)
    for alpha, rank in ((-1.0, 4), (0.5, 0)):
        with pytest.raises(DefenseError):
            resta_instruct(make_adapter(), base, aligned, alpha=alpha, rank=rank)
    other = checkpoint("c", {Q: torch.randn(4, 4), V: torch.randn(8, 16)})
    with pytest.raises(ModelError, match="is for another model"):
        resta_instruct(make_adapter(), other, other, alpha=0.5, rank=4)
