"""The interface of a defense: a settings class with its traits, and one function that applies it.

A settings class does not need torch. Its fields are the defense's settings, each with a type, limits, a default and a
docstring. The sweep file, the command line, the documentation and the search are derived from them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import ValidationError, model_validator

from safecomm.data.rows import Example
from safecomm.defenses.space import RealLevel, Strict, WholeLevel, searched, within
from safecomm.errors import DefenseError

if TYPE_CHECKING:
    from safecomm.defenses.adapter import Adapter
    from safecomm.defenses.realigned import Realigned

Need = Literal["adapter", "profile", "safe", "base", "aligned", "moments", "safety_data"]


class Defense(Strict):
    """The settings of one defense. Subclass `Realignment` or `TrainingDefense`."""

    name: ClassVar[str]
    """Its name in a sweep."""
    trains: ClassVar[bool] = False
    """Whether it acts during the fine-tune rather than on the finished adapter."""
    needs: ClassVar[tuple[Need, ...]] = ()
    """Its inputs: `adapter`, `profile` (the adapter's alignment profile), `safe` (the safe adapter), `base` and
    `aligned` (checkpoint folders), `moments` (of the aligned model's inputs on safety examples); a `TrainingDefense`
    may need `safety_data`."""
    strict: ClassVar[bool] = False
    """Whether it selects modules strictly below a threshold, excluding equality."""

    def added_rank(self, rank: int) -> int:
        """Returns the most that it adds to the rank of an adapter that was trained with `rank`."""
        return 0

    def constants(self) -> dict[str, Any]:
        """Returns the settings as JSON values, for the lineage record."""
        return self.model_dump(mode="json")

    @classmethod
    def checked(cls, settings: Mapping[str, Any]) -> Self:
        """Validates settings that must all be constants.

        Raises:
            DefenseError: if a setting is invalid or missing, or is a range.
        """
        try:
            valid = cls.model_validate(dict(settings))
        except ValidationError as error:
            raise DefenseError("; ".join(map(_message, error.errors(include_url=False)))) from error
        if ranges := [key for name, value in valid for key in searched(name, value)]:
            raise DefenseError(f"{ranges[0]} is a range; give one value here, or use a sweep to search the range")
        return valid


class Realignment(Defense):
    """A defense that makes a trained adapter safer."""

    @property
    def needs_equal_ranks(self) -> bool:
        """Whether it fails for an adapter of another rank than the safe adapter's."""
        return False

    def apply(self, *subject: Any) -> "Realigned":
        """Returns the safer adapter.

        Args:
            *subject: the inputs that the defense `needs`, in that order.
        """
        raise NotImplementedError(f"{type(self).__name__} has no apply(self, {', '.join(self.needs)})")


@dataclass(frozen=True)
class Patch:
    """A short further training of a fine-tuned adapter."""

    examples: Sequence[Example]
    """Repeated until they fill a batch."""
    steps: int
    """Optimizer steps, at a constant learning rate."""
    learning_rate: float | None = None
    """None for that of the fine-tune."""


class TrainingDefense(Defense):
    """A defense that acts during training. Its methods are optional hooks."""

    trains: ClassVar[bool] = True

    def hyperparameters(self) -> dict[str, Any]:
        """Returns the hyperparameters that it overrides: any of rank, alpha, learning_rate and epochs."""
        return {}

    def trained_rank(self) -> int | None:
        """Returns the largest rank that it may train with, or None if it keeps the sweep's."""
        return None

    @property
    def has_start(self) -> bool:
        """Whether it gives the fine-tune an adapter to start on top of."""
        return type(self).start is not TrainingDefense.start

    @property
    def has_loss(self) -> bool:
        """Whether it changes the loss."""
        return type(self).loss is not TrainingDefense.loss

    @classmethod
    def has_patch(cls) -> bool:
        """Returns whether it trains the fine-tuned adapter further."""
        return cls.patch is not TrainingDefense.patch

    @property
    def least_safety_examples(self) -> int:
        """How many examples `finetune.safety_data` must have at least."""
        return 0

    def start(self, base: Path, aligned: Path, targets: Sequence[str]) -> "Adapter":
        """Returns an adapter that the new one is trained on top of, as if it were part of the aligned model.

        Only if a subclass overrides it. The arm's adapter is the sum of both, so a chain has one such defense at most.

        Args:
            base: checkpoint folder of the model before its alignment.
            aligned: checkpoint folder of the model that is trained.
            targets: the modules that the new adapter changes, by type (`q_proj`) or path (`self_attn.q_proj`).
        """
        raise NotImplementedError(f"{type(self).__name__} has no start(self, base, aligned, targets)")

    def data(self, examples: Sequence[Example], safety: Sequence[Example], seed: int) -> Sequence[Example]:
        """Returns the training set.

        Args:
            examples: the task examples, or the output of the previous training defense.
            safety: the examples of `finetune.safety_data`; empty unless the defense needs `safety_data`.
            seed: seed for sampling.
        """
        return examples

    def patch(self, safety: Sequence[Example], seed: int) -> Patch:
        """Returns on what the adapter is trained further after the fine-tune. Only if a subclass overrides it.

        Args:
            safety: the examples of `finetune.safety_data`; empty unless the defense needs `safety_data`.
            seed: seed for sampling.
        """
        raise NotImplementedError(f"{type(self).__name__} has no patch(self, safety, seed)")

    def loss(self, loss: Any, model: Any, inputs: Mapping[str, Any], outputs: Any) -> Any:
        """Returns the loss of one micro-batch.

        If a subclass overrides it, the trainer calls it on every rank.

        Args:
            loss: the cross-entropy of the answers, a scalar tensor.
            model: the PEFT model being trained; with `zero: 3` its parameters are sharded.
            inputs: the batch that the model received.
            outputs: the model's output, including `logits`, with gradients.
        """
        return loss


class Selecting(Realignment):
    """A defense that acts on the modules whose update agrees least with the alignment, measured by rho.

    Each selection criterion takes one value for all modules or one per module type, `{q_proj: 0.6, v_proj: 0.85}`;
    other module types are then left unchanged.
    """

    all_by_default: ClassVar[bool] = False
    """Whether it acts on all modules if no criterion is set."""

    threshold: Annotated[RealLevel, within(-1, 1)] | None = None
    """Select the modules with rho up to this value."""
    lowest: Annotated[WholeLevel, within(0, float("inf"))] | None = None
    """Select this number of modules with the lowest rho."""
    quantile: Annotated[RealLevel, within(0, 1)] | None = None
    """Select this share of the modules, lowest rho first; 1 selects all."""
    above_null: Annotated[RealLevel, within(-2, 1)] | None = None
    """Select the modules whose rho exceeds that of a random matrix of the same shape by at most this.

    That rho is computed for an alignment with equal singular values; with others it is lower, so one value does not
    mean the same for every model."""

    @model_validator(mode="after")
    def one_way_of_selecting(self) -> Self:
        """Checks that exactly one selection criterion is set, or at most one if all modules are the default."""
        ways = list(Selecting.model_fields)
        if len(self.selection) > 1 or not (self.selection or self.all_by_default):
            raise ValueError(f"set exactly one of {', '.join(ways)}")
        return self

    @property
    def selection(self) -> dict[str, Any]:
        """The selection criterion and its value; empty if none is set."""
        given = {way: getattr(self, way) for way in Selecting.model_fields}
        return {way: value for way, value in given.items() if value is not None}

    def constants(self) -> dict[str, Any]:
        """Returns the settings as JSON values, without the unused selection criteria."""
        unused = set(Selecting.model_fields) - set(self.selection)
        return self.model_dump(mode="json", exclude=unused)


def by_name(settings: type[Defense]) -> Callable[[Callable[..., "Realigned"]], Callable[..., "Realigned"]]:
    """Decorates a defense's function to accept its settings as keyword arguments.

    `safe_lora(profile, threshold=0.35)` is short for `safe_lora(profile, SafeLora(threshold=0.35))`.
    """

    def decorate(function: Callable[..., "Realigned"]) -> Callable[..., "Realigned"]:
        @wraps(function)
        def call(*subject: Any, **named: Any) -> "Realigned":
            if subject and isinstance(subject[-1], settings):
                return function(*subject, **named)
            rest = {name: named.pop(name) for name in list(named) if name in (*settings.needs, "report")}
            return function(*subject, settings=settings.checked(named), **rest)

        return call

    return decorate


def _message(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"] if part not in ("value", "by type"))
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{key}: {message[0].lower()}{message[1:]}" if key else message
