"""The randomized SVD matches the exact one, and an energy share gets the directions that it needs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from safecomm.defenses.low_rank import leading, leading_by_energy


def falling(shape: tuple[int, int], ratio: float, seed: int) -> tuple[Tensor, Tensor]:
    """Returns a random matrix whose singular values fall by a ratio each, and these."""
    random = torch.Generator().manual_seed(seed)
    left = torch.linalg.qr(torch.randn(shape[0], min(shape), generator=random, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(shape[1], min(shape), generator=random, dtype=torch.float64)).Q
    values = ratio ** torch.arange(min(shape), dtype=torch.float64)
    return left * values @ right.T, values


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    rank=st.integers(1, 30),
    seed=st.integers(0, 2**31),
)
def test_leading_triples_are_the_exact_ones(shape: tuple[int, int], rank: int, seed: int) -> None:
    matrix, values = falling(shape, 0.8, seed)
    U, S, Vh = leading(matrix, rank, seed)
    count = min(rank, *shape)
    assert (U.shape, S.shape, Vh.shape) == ((shape[0], count), (count,), (count, shape[1]))
    assert torch.allclose(S, values[:count], rtol=1e-4)
    nearest = values[count:].square().sum().sqrt()  # Eckart and Young: no approximation of that rank is closer
    assert (matrix - U * S @ Vh).norm() <= 1.001 * nearest + 1e-6


def test_seed_determines_the_projection() -> None:
    matrix = torch.randn(100, 90)
    first, again, other = (leading(matrix, 4, seed)[1] for seed in (1, 1, 2))
    assert first.equal(again) and not first.equal(other)


@pytest.mark.parametrize("share", [0.3, 0.9, 0.99, 0.999999])
def test_energy_share_uses_the_fewest_directions(share: float) -> None:
    matrix, values = falling((200, 150), 0.9, 0)
    held = values.square().cumsum(0) / values.square().sum()
    assert len(leading_by_energy(matrix, share)[1]) == int((held < share).sum()) + 1


def test_full_energy_needs_all_directions() -> None:
    assert len(leading_by_energy(torch.randn(30, 50), 1.0)[1]) == 30
