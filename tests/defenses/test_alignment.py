"""The profile equals the dense formulas, and incompatible checkpoints are rejected."""

import json
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from safecomm.defenses.adapter import Adapter, Factors
from safecomm.defenses.alignment import BLOCK, Profile, profile
from safecomm.errors import ModelError

Q, V = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"
Checkpoints = Callable[..., Path]
Adapters = Callable[..., Adapter]
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def write(folder: Path, weights: Mapping[str, Tensor]) -> Path:
    folder.mkdir()
    save_file({f"{name}.weight": weight.contiguous() for name, weight in weights.items()}, folder / "model.safetensors")
    return folder


def assert_equals_dense_formulas(made: Profile, base: Tensor, aligned: Tensor, factors: Factors) -> None:
    difference = aligned.double() - base.double()
    C = difference @ difference.T / difference.norm()
    update = factors.scaling * factors.B.double() @ factors.A.double()
    (row,) = made.modules
    projected = C @ update
    assert row.v_norm == pytest.approx(float(difference.norm()), rel=1e-6)
    assert row.update_norm == pytest.approx(float(update.norm()), rel=1e-6)
    assert row.projected_norm == pytest.approx(float(projected.norm()), rel=1e-5)
    assert row.rho == pytest.approx(float((projected * update).sum() / projected.norm() / update.norm()), abs=1e-6)
    assert row.null == 1 / math.sqrt(1 + update.shape[0] / update.shape[1])
    dense = C @ factors.B.double()
    assert (made.projected[row.name] - dense).norm() / dense.norm() <= 1e-5


@settings(max_examples=60, deadline=None)
@given(
    d_out=st.integers(1, 40),
    d_in=st.integers(1, 40),
    rank=st.integers(1, 12),
    dtype=st.sampled_from(DTYPES),
    adapter_dtype=st.sampled_from(DTYPES),
    scaling=st.sampled_from([0.5, 2.0, 16 / 3]),
    transposed=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_profile_equals_the_dense_formulas(
    d_out: int,
    d_in: int,
    rank: int,
    dtype: torch.dtype,
    adapter_dtype: torch.dtype,
    scaling: float,
    transposed: bool,
    seed: int,
) -> None:
    random = torch.Generator().manual_seed(seed)
    base = torch.randn(d_out, d_in, generator=random).to(dtype)
    aligned = (base.double() + 0.1 * torch.randn(d_out, d_in, generator=random)).to(dtype)
    A = torch.randn(rank, d_in, generator=random).to(adapter_dtype)
    factors = Factors(A, torch.randn(d_out, rank, generator=random).to(adapter_dtype), scaling)
    if aligned.equal(base):
        return
    with tempfile.TemporaryDirectory() as scratch:
        stored = (base.T, aligned.T) if transposed else (base, aligned)
        folders = [write(Path(scratch, name), {Q: weight}) for name, weight in zip(("a", "b"), stored, strict=True)]
        made = profile(*folders, Adapter({Q: factors}, {"fan_in_fan_out": transposed}, "random"))
    assert_equals_dense_formulas(made, base, aligned, factors)


def test_norm_of_a_large_module_is_accurate(checkpoint: Checkpoints) -> None:
    d_in = 4096
    d_out = 3 * BLOCK // d_in + 1  # four blocks, the last of one row
    base = torch.randn(d_out, d_in).bfloat16()
    aligned = (base + 0.01 * torch.randn(d_out, d_in)).bfloat16()
    factors = Factors(torch.randn(8, d_in), torch.randn(d_out, 8), 2.0)
    made = profile(checkpoint("a", {Q: base}), checkpoint("b", {Q: aligned}), Adapter({Q: factors}, {}, "random"))
    assert_equals_dense_formulas(made, base, aligned, factors)


def test_biases_and_untouched_modules_are_not_read(checkpoint: Checkpoints, make_adapter: Adapters) -> None:
    folders = [checkpoint(name) for name in "ab"]
    adapter = make_adapter()
    plain = profile(*folders, adapter)
    for folder in folders:
        weights = {key: weight.clone() for key, weight in load_file(folder / "model.safetensors").items()}
        others = {f"{Q}.bias": torch.randn(16), "lm_head.weight": torch.full((2, 2), math.nan)}
        save_file(weights | others, folder / "model.safetensors")
    assert profile(*folders, adapter).modules == plain.modules


def test_a_zero_update_has_rho_zero(checkpoint: Checkpoints, make_adapter: Adapters) -> None:
    adapter = make_adapter()
    adapter.modules[Q].B.zero_()
    row = profile(checkpoint("a"), checkpoint("b"), adapter).modules[0]
    assert (row.name, row.rho, row.update_norm, row.projected_norm) == (Q, 0.0, 0.0, 0.0)


def test_saved_profiles_load_equal(checkpoint: Checkpoints, make_adapter: Adapters, tmp_path: Path) -> None:
    adapter = make_adapter()
    made = profile(checkpoint("a"), checkpoint("b"), adapter)
    made.save(tmp_path / "profile")
    loaded = Profile.load(tmp_path / "profile", adapter)
    assert (loaded.modules, loaded.inputs) == (made.modules, made.inputs)
    assert all(loaded.projected[name].equal(made.projected[name]) for name in (Q, V))
    table = json.loads((tmp_path / "profile" / "profile.json").read_text())["modules"]
    assert list(table[0]) == ["name", "rho", "null", "v_norm", "update_norm", "projected_norm"]
    with pytest.raises(ModelError, match="is the profile of another adapter"):
        Profile.load(tmp_path / "profile", make_adapter())


def test_identical_weights_are_rejected_with_all_modules(checkpoint: Checkpoints, make_adapter: Adapters) -> None:
    weights = {Q: torch.randn(16, 16), V: torch.randn(8, 16)}
    with pytest.raises(ModelError, match=rf"are identical.*{Q}, {V}, so"):
        profile(checkpoint("a", weights), checkpoint("b", weights), make_adapter())
    with pytest.raises(ModelError, match=rf"identical in {V}, so"):
        profile(checkpoint("c", weights), checkpoint("d", weights | {Q: torch.randn(16, 16)}), make_adapter())


def test_base_and_aligned_of_different_shapes_are_rejected(checkpoint: Checkpoints, make_adapter: Adapters) -> None:
    other = {Q: torch.randn(16, 16), V: torch.randn(4, 16)}
    with pytest.raises(ModelError, match=rf"{V} is 8 x 16 in the first and 4 x 16 in the second"):
        profile(checkpoint("a"), checkpoint("b", other), make_adapter())


def test_adapter_for_another_model_is_rejected(checkpoint: Checkpoints, make_adapter: Adapters) -> None:
    other = {Q: torch.randn(16, 16), V: torch.randn(4, 16)}
    with pytest.raises(ModelError, match=r"random adapter: is for another model.*8 x 16, but the weight is 4 x 16"):
        profile(checkpoint("a", other), checkpoint("b", other), make_adapter())
    missing = {Q: torch.randn(16, 16)}
    with pytest.raises(ModelError, match=rf"has no weight for {V}.*same model"):
        profile(checkpoint("c", missing), checkpoint("d", missing), make_adapter())


@pytest.mark.parametrize("broken", ["base", "aligned"])
def test_checkpoint_with_non_finite_values_is_named(
    checkpoint: Checkpoints, make_adapter: Adapters, broken: str
) -> None:
    bad = {Q: torch.randn(16, 16), V: torch.randn(8, 16)}
    bad[V][3, 3] = math.nan
    folders = [checkpoint(name, bad if name == broken else None) for name in ("base", "aligned")]
    with pytest.raises(ModelError, match=rf"{broken}/model\.safetensors: {V} has non-finite values"):
        profile(*folders, make_adapter())


def test_broken_adapter_is_rejected_before_opening_checkpoints(make_adapter: Adapters, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no LoRA weights"):
        profile(tmp_path, tmp_path, replace(make_adapter(), modules={}))
