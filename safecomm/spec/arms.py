"""The `arms` section: chains of defenses with their settings."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import model_validator

from safecomm.spec.space import Real, RealLevel, Strict, Whole, WholeLevel, searched, within


class Training(Strict):
    """Train with other hyperparameters than the section `finetune` has; what is left out is taken from there."""

    rank: Annotated[Whole, within(1, 512)] | None = None
    """Rank of the adapter."""
    alpha: Annotated[Real, within(1e-3, 1e4)] | None = None
    """The update is scaled by alpha / rank."""
    learning_rate: Annotated[Real, within(1e-8, 1)] | None = None
    """Peak learning rate."""
    epochs: Annotated[Real, within(1e-3, 1000)] | None = None
    """Passes over the data."""

    @model_validator(mode="after")
    def changes_something(self) -> Self:
        """Refuses a step without settings."""
        if all(getattr(self, name) is None for name in type(self).model_fields):
            raise ValueError(f"give one of {', '.join(type(self).model_fields)}")
        return self


class SafeInstruct(Strict):
    """Mix safety examples into the task data (Bianchi et al., arXiv 2309.07875)."""

    ratio: Annotated[Real, within(1e-5, 10)]
    """Safety examples per task example."""


class Selecting(Strict):
    """A defense that acts on the modules whose update disagrees most with the alignment, by rho.

    Each way takes one value for all modules or a value a module type, `{q_proj: 0.6, v_proj: 0.85}`; modules of other
    types are then left alone.
    """

    threshold: Annotated[RealLevel, within(-1, 1)] | None = None
    """Act on the modules up to this rho."""
    lowest: Annotated[WholeLevel, within(0, math.inf)] | None = None
    """Act on this many modules, those of the lowest rho."""
    quantile: Annotated[RealLevel, within(0, 1)] | None = None
    """Act on this share of the modules, those of the lowest rho; 1 is all."""
    above_null: Annotated[RealLevel, within(-1, 1)] | None = None
    """Act on the modules whose rho exceeds that of a random matrix of their shape by at most this."""

    @model_validator(mode="after")
    def one_way_of_selecting(self) -> Self:
        """Refuses none or several ways of choosing the modules."""
        ways = list(Selecting.model_fields)
        if sum(getattr(self, way) is not None for way in ways) != 1:
            raise ValueError(f"give either {' or '.join(ways)}")
        return self


class SafeLora(Selecting):
    """Project the selected modules onto the alignment subspace (SafeLoRA, arXiv 2405.16833)."""

    projection: Literal["gram", "subspace"] = "gram"
    """`gram`: the published one. `subspace`: onto the leading directions of the alignment, so many as `rank` or
    `energy` say."""
    rank: Annotated[Whole, within(1, math.inf)] | None = None
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


class SafeMerge(Selecting):
    """Merge the selected modules with a safe adapter's (SafeMERGE, arXiv 2503.17239)."""

    weight: Annotated[Real, within(0, 1)]
    """Weight of the fine-tuned adapter; the safe adapter gets the rest."""
    combine: Literal["cat", "svd", "linear", "dare_linear", "ties"] = "cat"
    """`cat`: the exact weighted sum, of both ranks together. `svd`: the nearest to it of the fine-tuned rank. `linear`,
    `dare_linear`, `ties`: PEFT's, as in the published code; they merge the factors, not the updates."""
    density: Annotated[Real, within(1e-3, 1)] | None = None
    """Share of the entries that `dare_linear` and `ties` keep."""
    seed: int = 0
    """Of the entries that `dare_linear` drops."""

    @model_validator(mode="after")
    def pruning_has_a_density(self) -> Self:
        """Refuses a density where nothing is dropped, and dropping without one."""
        if (self.density is not None) != (self.combine in ("dare_linear", "ties")):
            raise ValueError("combine: dare_linear and ties take a density, the others none")
        return self


class Drop(Selecting):
    """Remove the update of the selected modules: the control for SafeLoRA."""


class Scale(Strict):
    """Multiply the whole update: between 0 and 1, interpolation with the aligned model (WiSE-FT, arXiv 2109.01903)."""

    factor: Annotated[Real, within(0, 10)]
    """0 gives the aligned model, 1 the fine-tuned one."""


class RestaInstruct(Strict):
    """Add the alignment, W_aligned - W_base, to the update once more (RESTA, arXiv 2402.11746, 2412.19512)."""

    alpha: Annotated[Real, within(0, 10)]
    """How much of it."""
    rank: Annotated[Whole, within(1, math.inf)] = 16
    """Rank of the part that is added; the adapter's rank grows by it."""
    seed: int = 0
    """Of the randomized SVD."""


class Defense(Strict):
    """One step of an arm: one defense and its settings."""

    finetune: Training | None = None
    """Other hyperparameters of the fine-tune; no defense by itself."""
    safe_instruct: SafeInstruct | None = None
    """Safety examples in the training data."""
    safe_lora: SafeLora | None = None
    """Projection of unsafe modules."""
    safe_merge: SafeMerge | None = None
    """Merging of unsafe modules with a safe adapter."""
    drop: Drop | None = None
    """Removal of unsafe modules' updates."""
    scale: Scale | None = None
    """A factor on the whole update."""
    resta_instruct: RestaInstruct | None = None
    """The alignment, added once more."""

    @model_validator(mode="after")
    def one_defense_a_step(self) -> Self:
        """Refuses steps that name none or several defenses."""
        if len(self.model_fields_set) != 1:
            raise ValueError(f"each step names one of {', '.join(type(self).model_fields)}")
        return self

    @property
    def name(self) -> str:
        """The defense's name."""
        return next(iter(self.model_fields_set))

    @property
    def settings(self) -> Strict:
        """The defense's settings."""
        value: Strict = getattr(self, self.name)
        return value

    @property
    def trains(self) -> bool:
        """Whether it changes the fine-tune and not the adapter that comes out of it."""
        return isinstance(self.settings, Training | SafeInstruct)


def dimensions(arm: Sequence[Defense]) -> dict[str, Strict]:
    """Returns the searched settings of an arm: `defense.setting` -> its list or range."""
    return {
        key: space
        for step in arm
        for setting, value in step.settings
        for key, space in searched(f"{step.name}.{setting}", value).items()
    }
