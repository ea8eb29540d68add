"""What every defense is: a settings class, whose traits the rest of safecomm reads, and one function.

A settings class is read without torch. Its fields are the defense's settings, each with a type, limits, a default and a
docstring; the sweep file, the command line, the documentation and the search are derived from them.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import ValidationError, model_validator

from safecomm.data.rows import Example
from safecomm.defenses.space import RealLevel, Strict, WholeLevel, searched, within
from safecomm.errors import DefenseError

if TYPE_CHECKING:
    from safecomm.defenses.realigned import Realigned

Need = Literal["adapter", "profile", "safe", "base", "aligned", "safety_data"]


class Defense(Strict):
    """The settings of one defense. Subclass `Realignment` or `TrainingDefense`."""

    name: ClassVar[str]
    """What a sweep calls it."""
    trains: ClassVar[bool] = False
    """Whether it changes the fine-tune and not the adapter that comes out of it."""
    needs: ClassVar[tuple[Need, ...]] = ()
    """What it works on: `adapter`, `profile` (the adapter's alignment profile), `safe` (the safe adapter), `base` and
    `aligned` (checkpoint folders); a `TrainingDefense` may need `safety_data`."""
    strict: ClassVar[bool] = False
    """Whether it selects modules below a threshold only, and not those at it."""

    def added_rank(self, rank: int) -> int:
        """Returns by how much it raises the rank of an adapter that was trained with `rank`, at most."""
        return 0

    def constants(self) -> dict[str, Any]:
        """Returns the settings as a record of the defense keeps them."""
        return self.model_dump(mode="json")

    @classmethod
    def checked(cls, settings: Mapping[str, Any]) -> Self:
        """Returns constant settings, validated.

        Raises:
            DefenseError: where a setting is wrong or missing, or is a range.
        """
        try:
            made = cls.model_validate(dict(settings))
        except ValidationError as error:
            raise DefenseError("; ".join(map(_wording, error.errors(include_url=False)))) from error
        if ranges := [key for name, value in made for key in searched(name, value)]:
            raise DefenseError(f"{ranges[0]} is a range; give one value, or search it in a sweep")
        return made


class Realignment(Defense):
    """A defense that turns an adapter into a safer one."""

    def apply(self, *subject: Any) -> "Realigned":
        """Returns the safer adapter.

        Args:
            *subject: what the defense `needs`, in that order.
        """
        raise NotImplementedError(f"{type(self).__name__} has no apply(self, {', '.join(self.needs)})")


class TrainingDefense(Defense):
    """A defense that acts while the adapter is trained. Each method is a hook; none has to be overridden."""

    trains: ClassVar[bool] = True

    def hyperparameters(self) -> dict[str, Any]:
        """Returns the hyperparameters of the fine-tune that it changes, of rank, alpha, learning_rate and epochs."""
        return {}

    def trained_rank(self) -> int | None:
        """Returns the largest rank that it may train the adapter with; None for that of the sweep."""
        return None

    def data(self, examples: Sequence[Example], safety: Sequence[Example], seed: int) -> Sequence[Example]:
        """Returns the training set.

        Args:
            examples: the task's examples, or what the training defense before this one made of them.
            safety: the examples of `finetune.safety_data`; none unless the defense needs `safety_data`.
            seed: of whatever is drawn.
        """
        return examples

    def loss(self, loss: Any, model: Any, inputs: Mapping[str, Any], outputs: Any) -> Any:
        """Returns the loss of one micro-batch.

        It is called on every rank, inside the trainer, and only where a subclass overrides it.

        Args:
            loss: the cross-entropy of the answers, a scalar tensor.
            model: the PEFT model in training; under `zero: 3` its parameters are sharded.
            inputs: the batch, as the model gets it.
            outputs: what the model returned, with `logits`.
        """
        return loss


class Selecting(Realignment):
    """A defense that acts on the modules whose update disagrees most with the alignment, by rho.

    Each way takes one value for all modules or a value a module type, `{q_proj: 0.6, v_proj: 0.85}`; modules of other
    types are then left alone.
    """

    all_by_default: ClassVar[bool] = False
    """Whether it acts on all modules where no way of selecting is given."""

    threshold: Annotated[RealLevel, within(-1, 1)] | None = None
    """Act on the modules up to this rho."""
    lowest: Annotated[WholeLevel, within(0, float("inf"))] | None = None
    """Act on this many modules, those of the lowest rho."""
    quantile: Annotated[RealLevel, within(0, 1)] | None = None
    """Act on this share of the modules, those of the lowest rho; 1 is all."""
    above_null: Annotated[RealLevel, within(-2, 1)] | None = None
    """Act on the modules whose rho exceeds that of a random matrix of their shape by at most this."""

    @model_validator(mode="after")
    def one_way_of_selecting(self) -> Self:
        """Refuses several ways of choosing the modules, and none where one is needed."""
        ways = list(Selecting.model_fields)
        if len(self.selection) > 1 or not (self.selection or self.all_by_default):
            raise ValueError(f"give exactly one of {', '.join(ways)}")
        return self

    @property
    def selection(self) -> dict[str, Any]:
        """The way of selecting modules with its value."""
        given = {way: getattr(self, way) for way in Selecting.model_fields}
        return {way: value for way, value in given.items() if value is not None}

    def constants(self) -> dict[str, Any]:
        """Returns the settings, without the ways of selecting that are not used."""
        unused = set(Selecting.model_fields) - set(self.selection)
        return self.model_dump(mode="json", exclude=unused)


def by_name(settings: type[Defense]) -> Callable[[Callable[..., "Realigned"]], Callable[..., "Realigned"]]:
    """Lets a defense's function take its settings by name, with the class's defaults and limits.

    `safe_lora(profile, threshold=0.35)` is `safe_lora(profile, SafeLora(threshold=0.35))`.
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


def _wording(found: Any) -> str:
    place = ".".join(str(part) for part in found["loc"] if part not in ("value", "by type"))
    message = str(found["msg"]).removeprefix("Value error, ")
    return f"{place}: {message[0].lower()}{message[1:]}" if place else message
