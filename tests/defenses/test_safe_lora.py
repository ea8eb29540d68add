"""SafeLoRA projects only the selected modules, according to its formulas."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from safecomm.defenses import Adapter, profile, safe_lora
from safecomm.defenses.adapter import Factors
from safecomm.defenses.weights import Weights
from safecomm.errors import DefenseError, UsageError

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
    safer = safe_lora(profile(base, aligned, adapter), lowest={"v_proj": 1}).adapter
    difference = Weights(aligned).tensor(V).double()
    dense = difference @ difference.T / difference.norm() @ update(adapter, V)
    assert (update(safer, V) - dense).norm() / dense.norm() <= (
        1e-5 if dtype != torch.bfloat16 else torch.finfo(dtype).eps
    )
    assert safer.modules[Q] is adapter.modules[Q]
    assert safer.modules[V].A is adapter.modules[V].A


@settings(max_examples=50, deadline=None)
@given(
    shape=st.tuples(st.integers(2, 60), st.integers(2, 60)),
    k=st.integers(1, 60),
    energy=st.none() | st.floats(0.05, 0.999),
    transposed=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_subspace_is_the_projector_onto_the_leading_left_singular_vectors(
    shape: tuple[int, int], k: int, energy: float | None, transposed: bool, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    # Singular values that fall fast enough for the random projection to tell the leading ones apart.
    left = torch.linalg.qr(torch.randn(shape[0], min(shape), generator=random, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(shape[1], min(shape), generator=random, dtype=torch.float64)).Q
    difference = left * 0.7 ** torch.arange(min(shape)) @ right.T
    base = torch.randn(shape, generator=random, dtype=torch.float64)
    A, B = torch.randn(3, shape[1], generator=random), torch.randn(shape[0], 3, generator=random).double()
    stored = [weight.T.contiguous() if transposed else weight for weight in (base, base + difference)]
    size: dict[str, Any] = {"energy": energy} if energy else {"rank": k}
    with tempfile.TemporaryDirectory() as scratch:
        folders = [write(Path(scratch, name), weight) for name, weight in zip("ab", stored, strict=True)]
        made = profile(*folders, Adapter({Q: Factors(A, B, 2.0)}, {"fan_in_fan_out": transposed}, "random"))
        projected = safe_lora(made, projection="subspace", lowest=1, seed=seed, **size).adapter.modules[Q]
    U, S, _ = torch.linalg.svd(difference, full_matrices=False)
    held = (S.square().cumsum(0) / S.square().sum()).tolist()
    kept = next((i + 1 for i, share in enumerate(held) if share >= energy - 1e-9), len(S)) if energy else k
    expected = U[:, :kept] @ (U[:, :kept].T @ B)
    assert projected.A is A and (projected.B - expected).norm() <= 1e-4 * B.norm()


def write(folder: Path, weight: Tensor) -> Path:
    from safetensors.torch import save_file

    folder.mkdir()
    save_file({f"{Q}.weight": weight}, folder / "model.safetensors")
    return folder


def test_the_textbook_projector_of_a_flat_module_is_the_identity(
    checkpoint: Checkpoints, make_adapter: Adapters, update: Update
) -> None:
    adapter = make_adapter()
    made = profile(checkpoint("a"), checkpoint("b"), adapter)
    whole = safe_lora(made, projection="subspace", energy=1.0, lowest=2).adapter
    for name in (Q, V):
        assert (update(whole, name) - update(adapter, name)).norm() <= 1e-5 * update(adapter, name).norm()


def test_threshold_includes_equality(checkpoint: Checkpoints, make_adapter: Adapters) -> None:
    made = profile(checkpoint("base"), checkpoint("aligned"), make_adapter())
    lowest = min(made.modules, key=lambda row: row.rho)
    safer = safe_lora(made, threshold=round(lowest.rho, 5))
    assert safer.modules == [lowest.name]
    assert safer.adapter.modules[lowest.name].B.equal(made.projected[lowest.name])


def test_selecting_nothing_gives_the_same_adapter(checkpoint: Checkpoints, make_adapter: Adapters) -> None:
    adapter = make_adapter()
    safer = safe_lora(profile(checkpoint("a"), checkpoint("b"), adapter), lowest=0)
    assert safer.modules == [] and safer.adapter.digest() == adapter.digest()


@pytest.mark.parametrize(
    "settings",
    [
        {"rank": 2},
        {"projection": "subspace"},
        {"projection": "subspace", "rank": 2, "energy": 0.5},
        {"projection": "subspace", "rank": 0},
        {"projection": "subspace", "energy": 1.1},
        {"projection": "exact"},
    ],
)
def test_invalid_settings_are_rejected(
    checkpoint: Checkpoints, make_adapter: Adapters, settings: dict[str, Any]
) -> None:
    made = profile(checkpoint("a"), checkpoint("b"), make_adapter())
    with pytest.raises(DefenseError):
        safe_lora(made, lowest=1, **settings)


def test_result_records_how_it_was_made(checkpoint: Checkpoints, make_adapter: Adapters, tmp_path: Path) -> None:
    adapter = make_adapter()
    made = profile(checkpoint("a"), checkpoint("b"), adapter)
    safe_lora(made, quantile=0.5).save(tmp_path / "safer")
    lineage = (tmp_path / "safer" / "lineage.json").read_text()
    assert adapter.digest() in lineage and str(made.base) in lineage and '"quantile": 0.5' in lineage
    with pytest.raises(UsageError, match="already exists"):
        safe_lora(made, quantile=0.5).save(tmp_path / "safer")
