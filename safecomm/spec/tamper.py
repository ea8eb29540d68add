"""The `tamper` section: how long the released adapters stay safe when they are trained further."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from safecomm.defenses.space import Strict, refuse_falling
from safecomm.spec.datasets import DatasetRef, TrainData

LearningRate = Annotated[float, Field(gt=0, le=1)]
Tampering = Literal["data", "harmful", "data_then_harmful"]
"""The field whose examples an adapter is trained on, or both, one after the other."""


class Tamper(Strict):
    """Trains every arm's best adapter further and measures attack success after some of the steps.

    `data` and `harmful` both start from the released adapter, so each gives a curve of its own; `harmful_after_data`
    adds one that starts where `data` ends. The learning rate is constant; batches, lengths and sharding are those of
    `finetune`.
    """

    data: TrainData | None = None
    """Harmless training examples, e.g. next year's task data: what happens in normal use."""
    harmful: TrainData | None = None
    """A few examples that comply with harmful requests: what an attacker would train on."""
    harmful_after_data: Annotated[bool, Field(exclude_if=lambda after: not after)] = False
    """Also trains on `harmful` after the last step on `data`: whether normal use makes the adapter easier to break."""
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
        if self.harmful_after_data and not (self.data and self.harmful):
            raise ValueError("harmful_after_data trains on both; set data and harmful")
        return self

    @property
    def datasets(self) -> dict[str, DatasetRef]:
        """The training sets by their keys in the sweep."""
        return {f"tamper.{name}": ref for name in ("data", "harmful") if (ref := getattr(self, name))}

    @property
    def curves(self) -> list[Tampering]:
        """What the adapters are trained on."""
        wanted: dict[Tampering, object] = {
            "data": self.data,
            "harmful": self.harmful,
            "data_then_harmful": self.harmful_after_data,
        }
        return [name for name, is_wanted in wanted.items() if is_wanted]

    @property
    def learning_rates(self) -> list[float | None]:
        """The learning rates; None for `finetune.learning_rate`."""
        return [*self.learning_rate] if isinstance(self.learning_rate, list) else [self.learning_rate]
