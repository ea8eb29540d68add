"""Other hyperparameters for the fine-tune: no defense by itself, but the step that others are compared with."""

from typing import Annotated, Any, ClassVar, Self

from pydantic import model_validator

from safecomm.defenses.defense import TrainingDefense
from safecomm.defenses.space import Real, Whole, values_of, within


class Hyperparameters(TrainingDefense):
    """Train with other hyperparameters than the section `finetune` has; what is left out is taken from there."""

    name: ClassVar[str] = "finetune"

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

    def hyperparameters(self) -> dict[str, Any]:
        """Returns those that are given."""
        return {name: value for name, value in self if value is not None}

    def trained_rank(self) -> int | None:
        """Returns the largest rank that is tried."""
        return max(values_of(self.rank)) if self.rank is not None else None
