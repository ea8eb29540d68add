"""The `arms` section: chains of defenses with their settings."""

import math
from typing import Annotated, Literal, Self

from pydantic import model_validator

from safecomm.spec.space import Real, Strict, Whole, within


class SafeInstruct(Strict):
    """Mix safety examples into the telecom data (Bianchi et al., arXiv 2309.07875)."""

    ratio: Annotated[Real, within(1e-5, 10)]
    """Safety examples per telecom example."""


class Selecting(Strict):
    """A defense that acts on the modules whose update disagrees most with the alignment, by rho."""

    threshold: Annotated[Real, within(-1, 1)] | None = None
    """Act on the modules up to this rho."""
    lowest: Annotated[Whole, within(0, math.inf)] | None = None
    """Act on this many modules, those of the lowest rho."""

    @model_validator(mode="after")
    def one_way_of_selecting(self) -> Self:
        """Refuses none or several ways of choosing the modules."""
        if (self.threshold is None) == (self.lowest is None):
            raise ValueError("give either threshold or lowest")
        return self


class SafeLora(Selecting):
    """Project the selected modules onto the alignment subspace (SafeLoRA, arXiv 2405.16833)."""


class SafeMerge(Selecting):
    """Merge the selected modules with a safe adapter's (SafeMERGE, arXiv 2503.17239)."""

    weight: Annotated[Real, within(0, 1)]
    """Weight of the fine-tuned adapter; the safe adapter gets the rest."""
    combine: Literal["cat", "linear"] = "cat"
    """`cat`: the exact weighted sum. `linear`: PEFT's, which the published code uses; it adds cross terms."""


class Defense(Strict):
    """One step of an arm: one defense and its settings."""

    safe_instruct: SafeInstruct | None = None
    """Safety examples in the training data."""
    safe_lora: SafeLora | None = None
    """Projection of unsafe modules."""
    safe_merge: SafeMerge | None = None
    """Merging of unsafe modules with a safe adapter."""

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
    def settings(self) -> SafeInstruct | SafeLora | SafeMerge:
        """The defense's settings."""
        value: SafeInstruct | SafeLora | SafeMerge = getattr(self, self.name)
        return value
