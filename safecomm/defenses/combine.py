"""Methods for merging two adapters' updates of one module."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from safecomm.defenses.adapter import Adapter, Factors
from safecomm.defenses.methods.safe_merge import Combination
from safecomm.errors import ModelError

Weights = tuple[float, float]
"""Weights of the fine-tuned adapter and of the other one."""


def cat(ours: Factors, theirs: Factors, weights: Weights) -> Factors:
    """Returns the exact weighted sum of the updates, of rank r_f + r_s."""
    A, B = _concatenated(ours, theirs, weights)
    return Factors(A.to(_common(ours.A, theirs.A)), B.to(_common(ours.B, theirs.B)), 1.0)


def stacked(below: Adapter, above: Adapter) -> Adapter:
    """Returns the exact sum of two adapters' updates, of the rank of both together."""
    names = [*below.modules, *(name for name in above.modules if name not in below.modules)]
    modules = {}
    for name in names:
        both = [adapter.modules[name] for adapter in (below, above) if name in adapter.modules]
        modules[name] = cat(both[0], both[1], (1.0, 1.0)) if len(both) == 2 else both[0]
    targets = sorted({name.rpartition(".")[2] for name in modules})
    return Adapter(modules, dict(above.config) | {"target_modules": targets}, above.source)


def svd(ours: Factors, theirs: Factors, weights: Weights) -> Factors:
    """Returns the update of rank r_f nearest to the exact weighted sum in the Frobenius norm.

    It decomposes the small product of the factors' R matrices, so it allocates nothing as large as the weight.
    """
    A, B = _concatenated(ours, theirs, weights)
    (left, R), (right, L) = torch.linalg.qr(B), torch.linalg.qr(A.T)
    U, S, Vh = torch.linalg.svd(R @ L.T)
    rank = min(ours.A.shape[0], len(S))
    root = S[:rank].sqrt()
    nearest_a, nearest_b = root[:, None] * (Vh[:rank] @ right.T), (left @ U[:, :rank]) * root
    return Factors(nearest_a.to(_common(ours.A, theirs.A)), nearest_b.to(_common(ours.B, theirs.B)), 1.0)


def by_factor(
    combine: Combination, ours: Factors, theirs: Factors, weights: Weights, density: float, seed: int
) -> Factors:
    """Returns PEFT's combination of this name, as the published code does.

    Limitations: PEFT sums the A and the B factors separately, each weighted by sqrt(weight * scaling). So `linear` is
    not the weighted sum: it has the extra cross terms sqrt(w_f w_s scaling_f scaling_s) (B_f A_s + B_s A_f).
    `dare_linear` (arXiv 2311.03099) and `ties` (2306.01708) drop entries of A and of B independently.

    Args:
        combine: `linear`, `dare_linear` or `ties`.
        ours: the fine-tuned adapter's factors.
        theirs: the safe adapter's.
        weights: their weights, 0 or more.
        density: share of the entries to keep; `linear` keeps all.
        seed: seed for the entries that `dare_linear` drops.

    Raises:
        ModelError: if an adapter's alpha is negative.
    """
    from peft.utils import merge_utils

    if min(ours.scaling, theirs.scaling) < 0:
        raise ModelError(
            f"combine: {combine} takes the square root of alpha, and an adapter's alpha is negative; use cat or svd"
        )
    roots = torch.tensor([math.sqrt(weights[0] * ours.scaling), math.sqrt(weights[1] * theirs.scaling)])
    merges: dict[str, Callable[[list[Tensor]], Tensor]] = {
        "linear": lambda pair: merge_utils.task_arithmetic(pair, roots),
        "dare_linear": lambda pair: merge_utils.dare_linear(pair, roots, density),
        "ties": lambda pair: merge_utils.ties(pair, roots, density),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        A = merges[combine]([_wide(ours.A), _wide(theirs.A)])
        B = merges[combine]([_wide(ours.B), _wide(theirs.B)])
    return Factors(A.to(_common(ours.A, theirs.A)), B.to(_common(ours.B, theirs.B)), 1.0)


def _concatenated(ours: Factors, theirs: Factors, weights: Weights) -> tuple[Tensor, Tensor]:
    """Returns the factors A (r_f + r_s x d_in) and B (d_out x r_f + r_s) of the exact weighted sum."""
    left, right = weights[0] * ours.scaling, weights[1] * theirs.scaling
    return torch.cat([_wide(ours.A), _wide(theirs.A)]), torch.cat([left * _wide(ours.B), right * _wide(theirs.B)], 1)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _common(left: Tensor, right: Tensor) -> torch.dtype:
    return torch.promote_types(left.dtype, right.dtype)
