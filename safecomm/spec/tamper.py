"""The `tamper` section: how long the released adapters stay safe when they are trained further."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from safecomm.defenses.space import Strict, refuse_falling
from safecomm.spec.datasets import DatasetRef, TrainData

LearningRate = Annotated[float, Field(gt=0, le=1)]
Tampering = Literal["data", "harmful"]
"""The field whose examples an adapter is trained on."""


class Tamper(Strict):
    """Trains every arm's best adapter further and measures attack success after some of the steps.

    `data` and `harmful` both start from the released adapter, so each gives a curve of its own. The learning rate is
    constant; batches, lengths and sharding are those of `finetune`.
    """

    data: TrainData | None = None
    """Harmless training examples, e.g. next year's task data: what happens in normal use."""
    harmful: TrainData | None = None
    """A few examples that comply with harmful requests: what an attacker would train on."""
    steps: list[Annotated[int, Field(ge=0, le=100_000)]] = [5, 10, 20, 50]
    """Optimizer steps after which attack success is measured; step 0, the released adapter, is always in the report."""
    learning_rate: LearningRate | Annotated[list[LearningRate], Field(min_length=1)] | None = None
    """Learning rate, instead of `finetune.learning_rate`; a list trains once with each of them."""
    max_accuracy_drop: Annotated[float | None, Field(ge=0, le=1), Field(exclude_if=lambda largest: largest is None)] = (
        None
    )
    """Also measures the task, and reports the worst case: the highest attack success after any number of steps, with
    any learning rate, that leaves the task accuracy at most this below the released adapter's."""

    @field_validator("steps")
    @classmethod
    def steps_rise(cls, steps: list[int]) -> list[int]:
        """Rejects steps that do not rise; returns them without step 0, which needs no training."""
        refuse_falling(steps, "the training goes on from each to the next")
        if not (trained := [step for step in steps if step]):
            raise ValueError("has no step above 0; add one")
        return trained

    @field_validator("learning_rate")
    @classmethod
    def rates_differ(cls, rates: float | list[float] | None) -> float | list[float] | None:
        """Rejects a learning rate that is listed twice."""
        if isinstance(rates, list) and len(set(rates)) < len(rates):
            raise ValueError(f"lists a learning rate twice: {rates}")
        return rates

    @model_validator(mode="after")
    def has_examples(self) -> Self:
        """Rejects a section without data."""
        if not self.curves:
            raise ValueError("set data (harmless examples), harmful (examples that comply), or both")
        return self

    @property
    def datasets(self) -> dict[str, DatasetRef]:
        """The training sets by their keys in the sweep."""
        return {f"tamper.{name}": getattr(self, name) for name in self.curves}

    @property
    def curves(self) -> list[Tampering]:
        """The fields that are set."""
        return [name for name in ("data", "harmful") if getattr(self, name)]

    @property
    def learning_rates(self) -> list[float | None]:
        """The learning rates; None for `finetune.learning_rate`."""
        return [*self.learning_rate] if isinstance(self.learning_rate, list) else [self.learning_rate]
