"""SafeLoRA: projects unsafe modules onto the alignment subspace."""

from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import model_validator

from safecomm.defenses.defense import Need, Selecting, by_name
from safecomm.defenses.space import Real, Seed, Whole, within
from safecomm.statistics.selection import Selection, select

if TYPE_CHECKING:
    from torch import Tensor

    from safecomm.defenses.adapter import Factors
    from safecomm.defenses.alignment import Profile
    from safecomm.defenses.realigned import Realigned


class SafeLora(Selecting):
    """Project the selected modules onto the alignment subspace (SafeLoRA, arXiv 2405.16833)."""

    name: ClassVar[str] = "safe_lora"
    needs: ClassVar[tuple[Need, ...]] = ("profile",)

    projection: Literal["gram", "subspace"] = "gram"
    """`gram`: the published method. `subspace`: onto the leading directions of the alignment; `rank` or `energy` sets
    how many."""
    rank: Annotated[Whole, within(1, inf)] | None = None
    """Number of directions of `subspace`."""
    energy: Annotated[Real, within(1e-6, 1)] | None = None
    """Alternative to `rank`: the share of the alignment that the directions of `subspace` capture."""
    seed: Seed = 0
    """Seed for the randomized SVD."""

    @model_validator(mode="after")
    def subspace_has_a_size(self) -> Self:
        """Checks that a subspace has exactly one size, and `gram` none."""
        sizes = (self.rank is not None) + (self.energy is not None)
        if sizes != (self.projection == "subspace"):
            raise ValueError("projection: subspace needs either rank or energy; projection: gram takes neither")
        return self

    def apply(self, *subject: Any) -> "Realigned":
        """Returns the projected adapter."""
        return safe_lora(*subject, self)


@by_name(SafeLora)
def safe_lora(profile: "Profile", settings: SafeLora) -> "Realigned":
    """Projects the update of the selected modules onto the alignment V = W_aligned - W_base (arXiv 2405.16833).

    `gram` is the published code's dW <- C dW with C = V V^T / ||V||_F, taken from the profile. C is a Gram matrix, not
    a projector. Its norm is sigma_1(V)^2 / ||V||_F, which for real models is so small that it nearly deletes the
    update; the profile's projected_norm / update_norm shows by how much.

    `subspace` is a projector, dW <- U U^T dW, onto the k leading left singular vectors of V; it reads V again. The
    textbook projector V (V^T V)^+ V^T uses all of them. For V of full rank with d_out <= d_in, as in all attention
    projections, that is the identity and projects nothing. So k must be smaller than d_out.

    Both change only B, so the rank stays the same.

    Args:
        profile: the alignment profile of the fine-tuned adapter.
        settings: the settings, as an object or as keyword arguments.

    Raises:
        ModelError: if `subspace` can no longer read the weights.
        DefenseError: if the settings are invalid.
    """
    from safecomm.defenses.realigned import Realigned

    selected = select(profile.modules, cast(Selection, settings.selection), strict=settings.strict)
    if settings.projection == "gram":
        products = {name: profile.projected[name] for name in selected}
    else:
        products = _onto_subspace(profile, selected, settings)
    modules = profile.adapter.modules
    safer = replace(profile.adapter, modules={**modules, **{n: _with_b(modules[n], B) for n, B in products.items()}})
    return Realigned(safer, settings.name, settings.constants(), selected, profile.inputs)


def _onto_subspace(profile: "Profile", selected: list[str], settings: SafeLora) -> "dict[str, Tensor]":
    """Returns U U^T B of each selected module."""
    import torch

    from safecomm.defenses.low_rank import leading, leading_by_energy
    from safecomm.defenses.threads import in_parallel
    from safecomm.defenses.weights import WeightDelta

    rank, energy, seed = cast(int | None, settings.rank), cast(float | None, settings.energy), settings.seed
    alignment = WeightDelta(profile.base, profile.aligned, profile.adapter.transposed)

    def project(name: str) -> "Tensor":
        V = alignment.of(name)
        U = (leading(V, rank, seed) if rank else leading_by_energy(V, energy or 1.0, seed))[0]
        return U @ (U.T @ profile.adapter.modules[name].B.to(V.dtype))

    with torch.no_grad():
        return dict(zip(selected, in_parallel(project, selected), strict=True))


def _with_b(factors: "Factors", product: "Tensor") -> "Factors":
    import torch

    # C shrinks B to magnitudes where float16 has few significant digits.
    dtype = torch.float32 if factors.B.dtype == torch.float16 else factors.B.dtype
    return factors._replace(B=product.to(dtype))
