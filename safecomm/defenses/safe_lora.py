"""SafeLoRA: project unsafe modules onto the alignment subspace."""

from dataclasses import replace
from typing import Literal, Unpack

import torch
from torch import Tensor

from safecomm.defenses.adapter import Factors
from safecomm.defenses.alignment import Profile
from safecomm.defenses.low_rank import leading, leading_by_energy
from safecomm.defenses.realigned import Realigned
from safecomm.defenses.threads import in_parallel
from safecomm.defenses.weights import Difference
from safecomm.errors import DefenseError
from safecomm.statistics.selection import Selection, select

Projection = Literal["gram", "subspace"]


def safe_lora(
    profile: Profile,
    *,
    projection: Projection = "gram",
    rank: int | None = None,
    energy: float | None = None,
    seed: int = 0,
    **by: Unpack[Selection],
) -> Realigned:
    """Projects the update of the selected modules onto the alignment V = W_aligned - W_base (arXiv 2405.16833).

    `gram` is the published code's dW <- C dW with C = V V^T / ||V||_F, read from the profile. C is a Gram matrix, no
    projector: its norm is sigma_1(V)^2 / ||V||_F, which is so small for the V of real models that it nearly deletes the
    update; the profile's projected_norm / update_norm tells by how much.

    `subspace` is a projector, dW <- U U^T dW, onto the k leading left singular vectors of V; it reads V again. The
    textbook's V (V^T V)^+ V^T is the same with all of them, and that is the identity for every V of full rank with
    d_out <= d_in, as those of all attention projections are: it would project nothing. k must leave some out.

    Both act on B alone, so the rank stays.

    Args:
        profile: the alignment profile of the fine-tuned adapter.
        projection: `gram` or `subspace`.
        rank: k, for `subspace`.
        energy: for `subspace`, instead of k: the share of ||V||_F^2 that the vectors must hold, above 0, at most 1.
        seed: of the randomized SVD.
        **by: one way of selecting modules; `threshold` selects rho <= threshold.

    Raises:
        ModelError: where the weights of `subspace` can't be read any more.
        DefenseError: where the settings make no sense.
    """
    selected = select(profile.modules, by)
    if projection == "gram":
        if rank is not None or energy is not None:
            raise DefenseError("rank and energy belong to projection: subspace; leave them out, or ask for subspace")
        products = {name: profile.projected[name] for name in selected}
    elif projection == "subspace":
        products = _onto_subspace(profile, selected, rank, energy, seed)
    else:
        raise DefenseError(f"there is no projection {projection!r}; take gram or subspace")
    modules = profile.adapter.modules
    safer = replace(profile.adapter, modules={**modules, **{n: _with_b(modules[n], B) for n, B in products.items()}})
    return Realigned(
        safer,
        "safe_lora",
        {**by, "projection": projection, "rank": rank, "energy": energy, "seed": seed},
        selected,
        profile.inputs,
    )


def _onto_subspace(
    profile: Profile, selected: list[str], rank: int | None, energy: float | None, seed: int
) -> dict[str, Tensor]:
    """Returns U U^T B of each selected module."""
    if (rank is None) == (energy is None):
        raise DefenseError("projection: subspace needs either rank (how many directions of V) or energy (their share)")
    if (rank is not None and rank < 1) or (energy is not None and not 0 < energy <= 1):
        raise DefenseError(f"rank must be 1 or more and energy above 0 and at most 1, not {rank or energy}")
    alignment = Difference(profile.base, profile.aligned, profile.adapter.transposed)

    def project(name: str) -> Tensor:
        V = alignment.of(name)
        U = (leading(V, rank, seed) if rank else leading_by_energy(V, energy or 1.0, seed))[0]
        return U @ (U.T @ profile.adapter.modules[name].B.to(V.dtype))

    with torch.no_grad():
        return dict(zip(selected, in_parallel(project, selected), strict=True))


def _with_b(factors: Factors, product: Tensor) -> Factors:
    # C shrinks B to where float16 has few digits left.
    dtype = torch.float32 if factors.B.dtype == torch.float16 else factors.B.dtype
    return factors._replace(B=product.to(dtype))
