"""A step that changes the fine-tune's hyperparameters: a baseline to compare defenses with."""

from typing import Annotated, Any, ClassVar, Self

from pydantic import model_validator

from safecomm.defenses.defense import TrainingDefense
from safecomm.defenses.space import Real, Whole, values_of, within


class Hyperparameters(TrainingDefense):
    """Override hyperparameters of the sweep's `finetune` section; omitted ones keep their value."""

    name: ClassVar[str] = "finetune"

    rank: Annotated[Whole, within(1, 512)] | None = None
    """Rank of the adapter."""
    alpha: Annotated[Real, within(1e-3, 1e4)] | None = None
    """LoRA alpha; the update is scaled by alpha / rank."""
    learning_rate: Annotated[Real, within(1e-8, 1)] | None = None
    """Peak learning rate."""
    epochs: Annotated[Real, within(1e-3, 1000)] | None = None
    """Passes over the data."""

    @model_validator(mode="after")
    def changes_something(self) -> Self:
        """Rejects a step without settings."""
        if all(getattr(self, name) is None for name in type(self).model_fields):
            raise ValueError(f"set at least one of {', '.join(type(self).model_fields)}")
        return self

    def hyperparameters(self) -> dict[str, Any]:
        """Returns the overridden hyperparameters."""
        return {name: value for name, value in self if value is not None}

    def trained_rank(self) -> int | None:
        """Returns the largest rank to be tried, or None."""
        return max(values_of(self.rank)) if self.rank is not None else None
