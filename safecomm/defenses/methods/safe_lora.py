"""SafeLoRA: project unsafe modules onto the alignment subspace."""

from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import model_validator

from safecomm.defenses.defense import Need, Selecting, by_name
from safecomm.defenses.space import Real, Whole, within
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
    """`gram`: the published one. `subspace`: onto the leading directions of the alignment, so many as `rank` or
    `energy` say."""
    rank: Annotated[Whole, within(1, inf)] | None = None
    """Directions of `subspace`."""
    energy: Annotated[Real, within(1e-6, 1)] | None = None
    """The share of the alignment that the directions of `subspace` hold, instead of `rank`."""
    seed: int = 0
    """Of the randomized SVD."""

    @model_validator(mode="after")
    def subspace_has_a_size(self) -> Self:
        """Refuses a subspace of no or two sizes, and a size without a subspace."""
        sizes = (self.rank is not None) + (self.energy is not None)
        if sizes != (self.projection == "subspace"):
            raise ValueError("projection: subspace takes either rank or energy, projection: gram neither")
        return self

    def apply(self, *subject: Any) -> "Realigned":
        """Returns the projected adapter."""
        return safe_lora(*subject, self)


@by_name(SafeLora)
def safe_lora(profile: "Profile", settings: SafeLora) -> "Realigned":
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
        settings: the settings, or each by its name.

    Raises:
        ModelError: where the weights of `subspace` can't be read any more.
        DefenseError: where the settings make no sense.
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

    # C shrinks B to where float16 has few digits left.
    dtype = torch.float32 if factors.B.dtype == torch.float16 else factors.B.dtype
    return factors._replace(B=product.to(dtype))
