"""SafeMERGE is the exact weighted sum with `cat`, PEFT's with `linear`, and refuses adapters that don't fit."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from safecomm.defenses import DEFENSES
from safecomm.defenses.adapter import Adapter, Factors
from safecomm.defenses.alignment import profile
from safecomm.defenses.safe_merge import safe_merge
from safecomm.errors import ModelError, UsageError

Q, V = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"
Checkpoints = Callable[..., Path]
Adapters = Callable[..., Adapter]
Update = Callable[[Adapter, str], Tensor]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    ranks=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    scalings=st.tuples(st.floats(0.1, 8), st.floats(0.1, 8)),
    dtypes=st.tuples(st.sampled_from(DTYPES), st.sampled_from(DTYPES)),
    weight=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_cat_is_the_exact_weighted_sum(
    shape: tuple[int, int],
    ranks: tuple[int, int],
    scalings: tuple[float, float],
    dtypes: tuple[torch.dtype, torch.dtype],
    weight: float,
    seed: int,
) -> None:
    random = torch.Generator().manual_seed(seed)
    pair = []
    for rank, scaling, dtype in zip(ranks, scalings, dtypes, strict=True):
        A, B = torch.randn(rank, shape[1], generator=random), torch.randn(shape[0], rank, generator=random)
        pair.append(Factors(A.to(dtype), B.to(dtype), scaling))
    ours, theirs = (Adapter({Q: factors}, {}, "random") for factors in pair)
    A, B, scaling = safe_merge(ours, theirs, [Q], weight).modules[Q]
    left, right = (factors.scaling * factors.B.double() @ factors.A.double() for factors in pair)
    assert A.shape[0] == sum(ranks)
    # Each entry of B is rounded once, so the error is bounded by that of the sum without cancellation.
    bound = (B.double().abs() @ A.double().abs()) * scaling * torch.finfo(B.dtype).eps + 1e-7 * sum(ranks)
    assert ((scaling * B.double() @ A.double() - (weight * left + (1 - weight) * right)).abs() <= bound).all()


def test_cat_merges_adapters_of_different_rank_and_scaling(
    make_adapter: Adapters, update: Update, tmp_path: Path
) -> None:
    ours, theirs = make_adapter(4, scaling=2.0), make_adapter(3, scaling=0.5)
    safe_merge(ours, theirs, [V], 0.7).save(tmp_path)
    merged = Adapter.load(tmp_path)
    expected = 0.7 * update(ours, V) + 0.3 * update(theirs, V)
    assert (update(merged, V) - expected).norm() / expected.norm() <= 1e-6
    assert (update(merged, Q) - update(ours, Q)).norm() == 0


def test_linear_has_the_cross_terms_of_pefts_combination(make_adapter: Adapters, update: Update) -> None:
    ours, theirs = make_adapter(scaling=2.0), make_adapter(scaling=0.5)
    (A_f, B_f, _), (A_s, B_s, _) = ours.modules[V], theirs.modules[V]
    cross = math.sqrt(0.7 * 0.3 * 2.0 * 0.5) * (B_f.double() @ A_s.double() + B_s.double() @ A_f.double())
    expected = 0.7 * update(ours, V) + 0.3 * update(theirs, V) + cross
    merged = safe_merge(ours, theirs, [V], 0.7, combine="linear")
    assert (update(merged, V) - expected).norm() / expected.norm() <= 1e-6
    assert merged.modules[V].A.shape == A_f.shape


def test_linear_refuses_different_ranks(make_adapter: Adapters) -> None:
    with pytest.raises(ModelError, match=rf"{V} has rank 3 and random adapter has rank 4.*combine: cat"):
        safe_merge(make_adapter(4), make_adapter(3), [V], 0.5, combine="linear")


def test_a_safe_adapter_that_does_not_fit_is_refused(make_adapter: Adapters) -> None:
    ours, theirs = make_adapter(), make_adapter()
    partial = replace(theirs, modules={Q: theirs.modules[Q]}, source="safe")
    assert safe_merge(ours, partial, [Q], 0.5).modules[V] is ours.modules[V]
    with pytest.raises(ModelError, match=rf"safe: has no update for {V}"):
        safe_merge(ours, partial, [Q, V], 0.5)
    with pytest.raises(ModelError, match=f"{V} has another shape"):
        safe_merge(ours, replace(theirs, modules={V: theirs.modules[Q]}), [V], 0.5)


@pytest.mark.parametrize(("weight", "combine"), [(1.1, "cat"), (-0.1, "cat"), (math.nan, "cat"), (0.5, "ties")])
def test_senseless_settings_are_refused(make_adapter: Adapters, weight: float, combine: str) -> None:
    with pytest.raises(UsageError):
        safe_merge(make_adapter(), make_adapter(), [V], weight, combine)


def test_a_step_selects_below_its_threshold_only(checkpoint: Checkpoints, make_adapter: Adapters) -> None:
    ours, theirs = make_adapter(), make_adapter()
    made = profile(checkpoint("base"), checkpoint("aligned"), ours)
    low, high = sorted(made.modules, key=lambda row: row.rho)
    merged, acted = DEFENSES["safe_merge"](ours, made, {"threshold": round(high.rho, 5), "weight": 0.5}, theirs)
    assert acted == [low.name]
    assert merged.modules[high.name] is ours.modules[high.name]


def test_a_step_needs_the_safe_adapter_and_its_own_profile(checkpoint: Checkpoints, make_adapter: Adapters) -> None:
    ours, theirs = make_adapter(), make_adapter()
    made = profile(checkpoint("base"), checkpoint("aligned"), ours)
    with pytest.raises(UsageError, match="needs a safe adapter"):
        DEFENSES["safe_merge"](ours, made, {"lowest": 1, "weight": 0.5}, None)
    with pytest.raises(ModelError, match="empty safe adapter: holds no LoRA weights"):
        empty = replace(theirs, modules={}, source="empty safe adapter")
        DEFENSES["safe_merge"](ours, made, {"lowest": 0, "weight": 0.5}, empty)
    with pytest.raises(ModelError, match="profile is that of another adapter"):
        DEFENSES["safe_merge"](theirs, made, {"lowest": 1, "weight": 0.5}, ours)
