"""SafeMERGE: merge unsafe modules with those of a safe adapter."""

import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import model_validator

from safecomm.defenses.defense import Need, Selecting, by_name
from safecomm.defenses.space import Real, within
from safecomm.errors import ModelError
from safecomm.statistics.selection import Selection, select

if TYPE_CHECKING:
    from safecomm.defenses.adapter import Adapter, Factors
    from safecomm.defenses.alignment import Profile
    from safecomm.defenses.realigned import Realigned

Combination = Literal["cat", "svd", "linear", "dare_linear", "ties"]
BY_FACTOR = ("linear", "dare_linear", "ties")
"""Those that merge the A and the B factors separately, and so need equal ranks."""
PRUNING = ("dare_linear", "ties")
"""Those that take a density."""


class SafeMerge(Selecting):
    """Merge the selected modules, or all, with a safe adapter's (SafeMERGE, arXiv 2503.17239)."""

    name: ClassVar[str] = "safe_merge"
    needs: ClassVar[tuple[Need, ...]] = ("profile", "safe")
    strict: ClassVar[bool] = True
    all_by_default: ClassVar[bool] = True

    weight: Annotated[Real, within(0, 1)]
    """Weight of the fine-tuned adapter; the safe adapter gets the rest."""
    combine: Combination = "cat"
    """`cat`: the exact weighted sum, of both ranks together. `svd`: the nearest to it of the fine-tuned rank. `linear`,
    `dare_linear`, `ties`: PEFT's, as in the published code; they merge the factors, not the updates."""
    density: Annotated[Real, within(1e-3, 1)] | None = None
    """Share of the entries that `dare_linear` and `ties` keep."""
    seed: int = 0
    """Of the entries that `dare_linear` drops."""

    @model_validator(mode="after")
    def pruning_has_a_density(self) -> Self:
        """Refuses a density where nothing is dropped, and dropping without one."""
        if (self.density is not None) != (self.combine in PRUNING):
            raise ValueError("combine: dare_linear and ties take a density, the others none")
        return self

    def added_rank(self, rank: int) -> int:
        """Returns the safe adapter's rank for `cat`, which keeps both adapters' factors."""
        return rank if self.combine == "cat" else 0

    def apply(self, *subject: Any) -> "Realigned":
        """Returns the merged adapter."""
        return safe_merge(*subject, self)


@by_name(SafeMerge)
def safe_merge(profile: "Profile", safe: "Adapter", settings: SafeMerge) -> "Realigned":
    """Merges the update of the selected modules with a safe adapter's: dW <- weight dW_f + (1 - weight) dW_s.

    SafeMERGE (arXiv 2503.17239, eq. 4). Without a way of selecting, all modules are merged: the paper's full merge.

    Limitations: modules that only the safe adapter has stay as the fine-tuned model has them.

    Args:
        profile: the alignment profile of the fine-tuned adapter.
        safe: the adapter tuned on safety data alone, on the same aligned model.
        settings: the settings, or each by its name.

    Raises:
        ModelError: where the safe adapter is empty or not finite, lacks a selected module or has it in another shape,
            or in another rank where the factors are merged.
        DefenseError: where the settings make no sense.
    """
    from safecomm.defenses.realigned import Realigned
    from safecomm.defenses.threads import one_thread

    by = cast(Selection, settings.selection)
    with one_thread():
        safe.check()
        selected = (
            select(profile.modules, by, strict=settings.strict) if by else [module.name for module in profile.modules]
        )
        merged = {name: _merged(name, profile.adapter, safe, settings) for name in selected}
    return Realigned(
        replace(profile.adapter, modules={**profile.adapter.modules, **merged}),
        settings.name,
        settings.constants(),
        selected,
        {**profile.inputs, "safe": safe.digest()},
    )


def _merged(name: str, adapter: "Adapter", safe: "Adapter", settings: SafeMerge) -> "Factors":
    """Returns the merged update of one module."""
    from safecomm.defenses.combine import by_factor, cat, svd

    ours, theirs = _pair(adapter, safe, name, settings.combine)
    weight, density = cast(float, settings.weight), cast(float | None, settings.density)
    weights = (weight, 1 - weight)
    if settings.combine == "cat":
        return cat(ours, theirs, weights)
    if settings.combine == "svd":
        return svd(ours, theirs, weights)
    # Modules of one shape would otherwise lose the same entries.
    own_seed = settings.seed + zlib.crc32(name.encode())
    return by_factor(settings.combine, ours, theirs, weights, density or 1.0, own_seed)


def _pair(adapter: "Adapter", safe: "Adapter", name: str, combine: str) -> "tuple[Factors, Factors]":
    """Returns the two adapters' factors of a module, which fit each other."""
    if name not in safe.modules:
        raise ModelError(
            f"{safe.source}: has no update for {name}; train the safe adapter on the modules of {adapter.source}"
        )
    ours, theirs = adapter.modules[name], safe.modules[name]
    if (ours.A.shape[1], ours.B.shape[0]) != (theirs.A.shape[1], theirs.B.shape[0]):
        raise ModelError(
            f"{safe.source}: {name} has another shape than in {adapter.source}; both must adapt the same model"
        )
    if combine in BY_FACTOR and ours.A.shape != theirs.A.shape:
        raise ModelError(
            f"{safe.source}: {name} has rank {theirs.A.shape[0]} and {adapter.source} has rank {ours.A.shape[0]}; "
            f"combine: {combine} needs equal ranks, combine: cat and svd do not"
        )
    return ours, theirs
