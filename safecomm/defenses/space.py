"""Values that a sweep may search: a constant, or one of the ranges and lists below."""

from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

Number = TypeVar("Number", int, float)


class Strict(BaseModel):
    """A section of the sweep file: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


LocalPath = Annotated[str, AfterValidator(lambda path: str(Path(path).expanduser().absolute()))]
"""A file or folder. It is made absolute where the sweep is read, since Ray's workers run in folders of their own."""


class Grid(Strict, Generic[Number]):
    """Every value is tried."""

    grid: Annotated[list[Number], Field(min_length=1)]
    """The values."""


class Choice(Strict, Generic[Number]):
    """The searcher picks among values."""

    choice: Annotated[list[Number], Field(min_length=1)]
    """The values."""


class _Range(Strict):
    @field_validator("*", mode="after")
    @classmethod
    def low_is_below_high(cls, bounds: tuple[float, float]) -> tuple[float, float]:
        """Refuses empty ranges."""
        if not bounds[0] < bounds[1]:
            raise ValueError(f"the first value must be below the second, not [{bounds[0]}, {bounds[1]}]")
        return bounds


class Uniform(_Range):
    """The searcher picks a real number between two."""

    uniform: tuple[float, float]
    """The lowest and the highest value."""


class LogUniform(_Range):
    """The searcher picks a real number between two, evenly over orders of magnitude."""

    loguniform: tuple[float, float]
    """The lowest (above 0) and the highest value."""

    @model_validator(mode="after")
    def low_is_positive(self) -> "LogUniform":
        """Refuses ranges that have no logarithm."""
        if self.loguniform[0] <= 0:
            raise ValueError("the first value of loguniform must be above 0")
        return self


class RandInt(_Range):
    """The searcher picks a whole number; both ends belong to the range."""

    randint: tuple[int, int]
    """The lowest and the highest value."""


class Exact(Strict):
    """Every value that makes a difference, which the alignment profile tells once the fine-tune is made."""

    exact: Annotated[int, Field(ge=2)] = 64
    """The most values; of more, evenly spaced ones are taken."""

    @model_validator(mode="before")
    @classmethod
    def by_name_alone(cls, value: object) -> object:
        """Takes the bare word `exact`."""
        return {} if value == "exact" else value


SPACES: dict[str, type[Strict]] = {
    "grid": Grid,
    "choice": Choice,
    "uniform": Uniform,
    "loguniform": LogUniform,
    "randint": RandInt,
    "exact": Exact,
}


def _tag(value: object) -> str | None:
    if isinstance(value, Strict):
        return next(iter(type(value).model_fields))
    if isinstance(value, dict):
        return next((name for name in value if name in SPACES), None)
    if value == "exact":
        return "exact"
    return "value" if isinstance(value, int | float | str) else None


def _by_form(*also: str) -> Discriminator:
    """Returns what tells the ways of giving a number apart, with a message that names them."""
    spaces = ", ".join(name for name in SPACES if name != "exact")
    numbers = ", ".join(["a number", *also])
    return Discriminator(
        _tag, custom_error_type="space", custom_error_message=f"must be {numbers}, or one of {{{spaces}}}: [...]"
    )


_Reals = (
    Annotated[float, Tag("value")]
    | Annotated[Grid[float], Tag("grid")]
    | Annotated[Choice[float], Tag("choice")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[LogUniform, Tag("loguniform")]
)
_Wholes = (
    Annotated[int, Tag("value")]
    | Annotated[Grid[int], Tag("grid")]
    | Annotated[Choice[int], Tag("choice")]
    | Annotated[RandInt, Tag("randint")]
)
Real = Annotated[_Reals, _by_form()]
"""A real number, or those to search."""
Whole = Annotated[_Wholes, _by_form()]
"""A whole number, or those to search."""


PER_TYPE = "by type"


def _whose(value: object) -> str:
    return PER_TYPE if isinstance(value, dict) and value and not set(value) & set(SPACES) else "value"


_by_whose = Discriminator(_whose)
_RealOrExact = Annotated[_Reals | Annotated[Exact, Tag("exact")], _by_form("exact")]
_WholeOrExact = Annotated[_Wholes | Annotated[Exact, Tag("exact")], _by_form("exact")]
RealLevel = Annotated[
    Annotated[_RealOrExact, Tag("value")] | Annotated[dict[str, _RealOrExact], Tag(PER_TYPE)],
    _by_whose,
]
"""A real number to select modules by: one for all modules, or one a module type."""
WholeLevel = Annotated[
    Annotated[_WholeOrExact, Tag("value")] | Annotated[dict[str, _WholeOrExact], Tag(PER_TYPE)],
    _by_whose,
]
"""A whole number to select modules by: one for all modules, or one a module type."""


def searched(key: str, value: object) -> dict[str, Strict]:
    """Returns the ranges and lists in a setting: none for a constant, one a module type where each has its own."""
    if isinstance(value, dict):
        return {
            place: space for kind, inner in value.items() for place, space in searched(f"{key}.{kind}", inner).items()
        }
    return {key: value} if isinstance(value, Strict) else {}


def at_point(key: str, value: object, point: dict[str, Any]) -> Any:
    """Returns a setting with a point's numbers in place of its ranges and lists."""
    if isinstance(value, dict):
        return {kind: at_point(f"{key}.{kind}", inner, point) for kind, inner in value.items()}
    return point.get(key, value)


def values_of(value: object) -> list[Any]:
    """Returns a setting's constants, list entries and ends, so that they can be checked against limits."""
    if isinstance(value, dict):
        return [number for inner in value.values() for number in values_of(inner)]
    if isinstance(value, Exact):  # they come from the modules and are within any limits
        return []
    if isinstance(value, Strict):
        return list(getattr(value, next(iter(type(value).model_fields))))
    return [value]


def within(low: float, high: float) -> AfterValidator:
    """Limits a searchable number, whichever way it is given."""

    def check(value: object) -> object:
        for number in values_of(value):
            if not low <= number <= high:
                raise ValueError(f"must lie between {low:g} and {high:g}, not {number:g}")
        return value

    return AfterValidator(check)
