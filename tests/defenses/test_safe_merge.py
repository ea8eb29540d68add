"""SafeMERGE: `cat` is the exact weighted sum, `linear` is PEFT's, and incompatible adapters are rejected."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from safecomm.defenses import Adapter, Profile, profile, safe_merge
from safecomm.defenses.adapter import Factors
from safecomm.errors import DefenseError, ModelError
from safecomm.statistics.selection import ModuleProfile

Q, V = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"
Checkpoints = Callable[..., Path]
Adapters = Callable[..., Adapter]
Update = Callable[[Adapter, str], Tensor]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def unmeasured(adapter: Adapter) -> Profile:
    """A profile in which q_proj has the lower rho: merging needs no more of it than the order."""
    rows = [ModuleProfile(name, 0.1 * place, 0.7, 1, 1, 1) for place, name in enumerate(adapter.modules)]
    return Profile(rows, {}, adapter, Path("base"), Path("aligned"))


def random_pair(
    shape: tuple[int, int],
    ranks: tuple[int, int],
    scalings: tuple[float, float],
    dtypes: tuple[torch.dtype, torch.dtype],
    seed: int,
) -> tuple[Factors, Factors]:
    random = torch.Generator().manual_seed(seed)

    def draw(rank: int, scaling: float, dtype: torch.dtype) -> Factors:
        A, B = torch.randn(rank, shape[1], generator=random), torch.randn(shape[0], rank, generator=random)
        return Factors(A.to(dtype), B.to(dtype), scaling)

    return draw(ranks[0], scalings[0], dtypes[0]), draw(ranks[1], scalings[1], dtypes[1])


def merge(ours: Factors, theirs: Factors, weight: float, **how: Any) -> Factors:
    made = safe_merge(
        unmeasured(Adapter({Q: ours}, {}, "ours")), Adapter({Q: theirs}, {}, "theirs"), weight=weight, **how
    )
    return made.adapter.modules[Q]


def dense(factors: Factors) -> Tensor:
    return factors.scaling * factors.B.double() @ factors.A.double()


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
    ours, theirs = random_pair(shape, ranks, scalings, dtypes, seed)
    A, B, scaling = merge(ours, theirs, weight)
    left, right = dense(ours), dense(theirs)
    assert A.shape[0] == sum(ranks)
    # Each entry of B is rounded once, so the error is bounded by that of the sum without cancellation.
    bound = (B.double().abs() @ A.double().abs()) * scaling * torch.finfo(B.dtype).eps + 1e-7 * sum(ranks)
    assert ((scaling * B.double() @ A.double() - (weight * left + (1 - weight) * right)).abs() <= bound).all()


def test_cat_merges_adapters_of_different_rank_and_scaling(
    make_adapter: Adapters, update: Update, tmp_path: Path
) -> None:
    ours, theirs = make_adapter(4, scaling=2.0), make_adapter(3, scaling=0.5)
    safe_merge(unmeasured(ours), theirs, weight=0.7, lowest={"v_proj": 1}).save(tmp_path / "merged")
    merged = Adapter.load(tmp_path / "merged")
    expected = 0.7 * update(ours, V) + 0.3 * update(theirs, V)
    assert (update(merged, V) - expected).norm() / expected.norm() <= 1e-6
    assert (update(merged, Q) - update(ours, Q)).norm() == 0


def test_linear_has_the_cross_terms_of_pefts_combination(make_adapter: Adapters, update: Update) -> None:
    ours, theirs = make_adapter(scaling=2.0), make_adapter(scaling=0.5)
    (A_f, B_f, _), (A_s, B_s, _) = ours.modules[V], theirs.modules[V]
    cross = math.sqrt(0.7 * 0.3 * 2.0 * 0.5) * (B_f.double() @ A_s.double() + B_s.double() @ A_f.double())
    expected = 0.7 * update(ours, V) + 0.3 * update(theirs, V) + cross
    merged = safe_merge(unmeasured(ours), theirs, weight=0.7, combine="linear").adapter
    assert (update(merged, V) - expected).norm() / expected.norm() <= 1e-6
    assert merged.modules[V].A.shape == A_f.shape


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    ranks=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    weight=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_svd_is_the_nearest_update_of_the_fine_tuned_rank(
    shape: tuple[int, int], ranks: tuple[int, int], weight: float, seed: int
) -> None:
    ours, theirs = random_pair(shape, ranks, (2.0, 0.5), (torch.float32, torch.float32), seed)
    made = merge(ours, theirs, weight, combine="svd")
    whole = weight * dense(ours) + (1 - weight) * dense(theirs)
    U, S, Vh = torch.linalg.svd(whole, full_matrices=False)
    rank = ranks[0]
    assert made.A.shape[0] == min(rank, sum(ranks), *shape)
    assert (dense(made) - (U[:, :rank] * S[:rank]) @ Vh[:rank]).norm() <= 1e-4 * whole.norm() + 1e-6


def test_dare_drops_entries_by_seed_and_rescales_the_rest() -> None:
    ours, theirs = random_pair((40, 50), (4, 4), (1.0, 1.0), (torch.float32, torch.float32), 0)
    first, again, other = (merge(ours, theirs, 1.0, combine="dare_linear", density=0.25, seed=s) for s in (1, 1, 2))
    assert first.A.equal(again.A) and first.B.equal(again.B) and not first.A.equal(other.A)
    kept = first.A != 0
    assert 0.15 < kept.float().mean() < 0.35
    assert torch.allclose(first.A[kept], 4 * ours.A[kept])


def test_dare_drops_different_entries_in_each_module(make_adapter: Adapters) -> None:
    ours = make_adapter()
    merged = safe_merge(unmeasured(ours), make_adapter(), weight=1.0, combine="dare_linear", density=0.5).adapter
    assert not (merged.modules[Q].A != 0).equal(merged.modules[V].A != 0)


def test_all_modules_are_merged_by_default(make_adapter: Adapters, update: Update) -> None:
    ours, theirs = make_adapter(), make_adapter()
    made = safe_merge(unmeasured(ours), theirs, weight=0.0)
    assert made.modules == [Q, V]
    assert all((update(made.adapter, name) - update(theirs, name)).norm() <= 1e-6 for name in (Q, V))


def test_linear_rejects_different_ranks(make_adapter: Adapters) -> None:
    with pytest.raises(ModelError, match=rf"{Q} has rank 3 and random adapter has rank 4.*combine: cat"):
        safe_merge(unmeasured(make_adapter(4)), make_adapter(3), weight=0.5, combine="linear")


def test_incompatible_safe_adapter_is_rejected(make_adapter: Adapters) -> None:
    ours, theirs = make_adapter(), make_adapter()
    partial = replace(theirs, modules={Q: theirs.modules[Q]}, source="safe")
    assert safe_merge(unmeasured(ours), partial, weight=0.5, lowest=1).adapter.modules[V] is ours.modules[V]
    with pytest.raises(ModelError, match=rf"safe: has no update for {V}"):
        safe_merge(unmeasured(ours), partial, weight=0.5)
    with pytest.raises(ModelError, match=f"{V} has another shape"):
        swapped = {Q: theirs.modules[Q], V: theirs.modules[Q]}
        safe_merge(unmeasured(ours), replace(theirs, modules=swapped), weight=0.5)
    with pytest.raises(ModelError, match="empty: has no LoRA weights"):
        safe_merge(unmeasured(ours), replace(theirs, modules={}, source="empty"), weight=0.5, lowest=0)


@pytest.mark.parametrize(
    ("weight", "settings"),
    [
        (1.1, {}),
        (-0.1, {}),
        (math.nan, {}),
        (0.5, {"combine": "ties"}),
        (0.5, {"combine": "ties", "density": 0}),
        (0.5, {"combine": "cat", "density": 0.5}),
        (0.5, {"combine": "mean"}),
    ],
)
def test_invalid_settings_are_rejected(make_adapter: Adapters, weight: float, settings: dict[str, Any]) -> None:
    with pytest.raises(DefenseError):
        safe_merge(unmeasured(make_adapter()), make_adapter(), weight=weight, **settings)


def test_threshold_excludes_equality(checkpoint: Checkpoints, make_adapter: Adapters) -> None:
    ours, theirs = make_adapter(), make_adapter()
    made = profile(checkpoint("base"), checkpoint("aligned"), ours)
    low, high = sorted(made.modules, key=lambda row: row.rho)
    merged = safe_merge(made, theirs, weight=0.5, threshold=round(high.rho, 5))
    assert merged.modules == [low.name]
    assert merged.adapter.modules[high.name] is ours.modules[high.name]
