"""SafeMERGE: merges unsafe modules with those of a safe adapter."""

import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import model_validator

from safecomm.defenses.defense import Need, Selecting, by_name
from safecomm.defenses.space import Real, Seed, within
from safecomm.errors import ModelError
from safecomm.statistics.selection import Selection, select

if TYPE_CHECKING:
    from safecomm.defenses.adapter import Adapter, Factors
    from safecomm.defenses.alignment import Profile
    from safecomm.defenses.realigned import Realigned

Combination = Literal["cat", "svd", "linear", "dare_linear", "ties"]
BY_FACTOR = ("linear", "dare_linear", "ties")
"""Combinations that merge the A and the B factors separately, and so need equal ranks."""
PRUNING = ("dare_linear", "ties")
"""Combinations that take a density."""


class SafeMerge(Selecting):
    """Merge the selected modules, or all, with a safe adapter's (SafeMERGE, arXiv 2503.17239)."""

    name: ClassVar[str] = "safe_merge"
    needs: ClassVar[tuple[Need, ...]] = ("profile", "safe")
    strict: ClassVar[bool] = True
    all_by_default: ClassVar[bool] = True

    weight: Annotated[Real, within(0, 1)]
    """Weight of the fine-tuned adapter; the safe adapter's is 1 - weight."""
    combine: Combination = "cat"
    """`cat`: the exact weighted sum; its rank is the sum of both ranks. `svd`: the best approximation of that sum with
    the fine-tuned adapter's rank. `linear`, `dare_linear`, `ties`: PEFT's methods, as in the published code; they merge
    the factors, not the updates."""
    density: Annotated[Real, within(1e-3, 1)] | None = None
    """Share of the entries that `dare_linear` and `ties` keep."""
    seed: Seed = 0
    """Seed for the entries that `dare_linear` drops."""

    @model_validator(mode="after")
    def pruning_has_a_density(self) -> Self:
        """Checks that a density is set for the combinations that prune, and only for those."""
        if (self.density is not None) != (self.combine in PRUNING):
            raise ValueError("density must be set for combine: dare_linear and ties, and for no other combination")
        return self

    @property
    def needs_equal_ranks(self) -> bool:
        """Whether it merges factors."""
        return self.combine in BY_FACTOR

    def added_rank(self, rank: int) -> int:
        """Returns the safe adapter's rank for `cat`, which keeps both adapters' factors, else 0."""
        return rank if self.combine == "cat" else 0

    def apply(self, *subject: Any) -> "Realigned":
        """Returns the merged adapter."""
        return safe_merge(*subject, self)


@by_name(SafeMerge)
def safe_merge(profile: "Profile", safe: "Adapter", settings: SafeMerge) -> "Realigned":
    """Merges the update of the selected modules with a safe adapter's: dW <- weight dW_f + (1 - weight) dW_s.

    SafeMERGE (arXiv 2503.17239, eq. 4). Without a selection criterion it merges all modules: the paper's full merge.

    Limitations: modules that only the safe adapter has are ignored.

    Args:
        profile: the alignment profile of the fine-tuned adapter.
        safe: the adapter that was tuned on safety data only, on the same aligned model.
        settings: the settings, as an object or as keyword arguments.

    Raises:
        ModelError: if the safe adapter is empty, has non-finite values or is the fine-tuned one, or lacks a selected
            module, has it in another shape, or has it in another rank and the combination merges factors.
        DefenseError: if the settings are invalid.
    """
    from safecomm.defenses.realigned import Realigned
    from safecomm.defenses.threads import one_thread

    by = cast(Selection, settings.selection)
    with one_thread():
        safe.check()
        if safe.digest() == profile.adapter.digest():
            raise ModelError(
                f"{safe.source}: is the same adapter as {profile.adapter.source}, so there is nothing to merge; give "
                "one that was tuned on safety data only"
            )
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
    # With the same seed, modules of the same shape would lose the same entries.
    own_seed = settings.seed + zlib.crc32(name.encode())
    return by_factor(settings.combine, ours, theirs, weights, density or 1.0, own_seed)


def _pair(adapter: "Adapter", safe: "Adapter", name: str, combine: str) -> "tuple[Factors, Factors]":
    """Returns the two adapters' factors of a module, and checks that their shapes match."""
    if name not in safe.modules:
        raise ModelError(
            f"{safe.source}: has no update for {name}; train the safe adapter on the same modules as {adapter.source}"
        )
    ours, theirs = adapter.modules[name], safe.modules[name]
    if (ours.A.shape[1], ours.B.shape[0]) != (theirs.A.shape[1], theirs.B.shape[0]):
        raise ModelError(
            f"{safe.source}: {name} has another shape than in {adapter.source}; use two adapters of the same model"
        )
    if combine in BY_FACTOR and ours.A.shape != theirs.A.shape:
        raise ModelError(
            f"{safe.source}: {name} has rank {theirs.A.shape[0]} and {adapter.source} has rank {ours.A.shape[0]}; "
            f"combine: {combine} needs equal ranks; use combine: cat or svd"
        )
    return ours, theirs
