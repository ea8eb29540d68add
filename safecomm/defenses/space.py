"""Searchable values: a constant, or one of the ranges and lists below."""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Generic, Literal, TypeVar, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from safecomm.errors import printable

Number = TypeVar("Number", int, float)


class Strict(BaseModel):
    """A section of the sweep file: frozen; unknown keys and numbers that are not finite are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def booleans_are_no_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuses `true` for a number, which Pydantic takes for 1."""
        found = set(_types(cls.model_fields[str(info.field_name)].annotation))
        if isinstance(value, bool) and found & {int, float} and bool not in found:
            raise ValueError(f"must be a number, not {str(value).lower()}")
        return value


def _types(annotation: Any) -> Iterator[Any]:
    """Yields the types in a union, with the values' types of its literals."""
    if get_origin(annotation) is Literal:
        yield from map(type, get_args(annotation))
    elif get_origin(annotation) in (Annotated, Union, UnionType):
        for inner in get_args(annotation):
            yield from _types(inner)
    else:
        yield annotation


LONGEST_NAME, LONGEST_PATH = 255, 4000
"""Limits of common file systems, in bytes; the path leaves room for names inside a folder."""


def _possible(path: str) -> str:
    """Returns a path that a file system can have.

    Raises:
        ValueError: if it can't.
    """
    if not path.strip():
        raise ValueError("is empty; give a path or a name")
    if "\0" in path:
        raise ValueError("has a NUL character; remove it")
    if path != printable(path) or "\n" in path:
        raise ValueError(f"has a control character ({printable(path)[:60]!r}); remove it")
    if len(path.encode()) > LONGEST_PATH or any(len(part.encode()) > LONGEST_NAME for part in path.split("/")):
        raise ValueError(f"is too long for a path: {path[:40]}...; shorten it")
    try:
        Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path}: there is no such user; write the path without ~") from error
    return path


PathText = Annotated[str, AfterValidator(_possible)]
"""A path as the user wrote it, or something else that may stand in its place, such as a Hub id."""
LocalPath = Annotated[PathText, AfterValidator(lambda path: str(Path(path).expanduser().absolute()))]
"""An absolute path."""
"""A file or folder. Relative paths are resolved when the sweep is read, because Ray's workers run in other folders."""


Seed = Annotated[int, Field(ge=0, lt=1 << 32)]
"""A seed that every random generator takes: 0 to 2^32 - 1."""


def refuse_twice(kind: str, items: Iterable[object]) -> None:
    """Raises a ValueError if something appears twice; `kind` names it in the message."""
    if twice := [item for item, count in Counter(map(str, items)).items() if count > 1]:
        raise ValueError(f"{kind} {twice[0]} is given twice; remove one")


def refuse_falling(numbers: list[Any], reason: str) -> None:
    """Raises a ValueError with the reason if each number is not above the one before."""
    if any(later <= earlier for earlier, later in pairwise(numbers)):
        raise ValueError(f"must rise, not {numbers}; {reason}")


def different(kind: str) -> AfterValidator:
    """Rejects a list in which something appears twice."""

    def check(items: list[Any]) -> list[Any]:
        refuse_twice(kind, items)
        return items

    return AfterValidator(check)


class Grid(Strict, Generic[Number]):
    """All values are tried."""

    grid: Annotated[list[Number], Field(min_length=1), different("the value")]
    """The values."""


class Choice(Strict, Generic[Number]):
    """The searcher picks among values."""

    choice: Annotated[list[Number], Field(min_length=1), different("the value")]
    """The values."""


class _Range(Strict):
    @field_validator("*", mode="after")
    @classmethod
    def low_is_below_high(cls, bounds: tuple[float, float]) -> tuple[float, float]:
        """Rejects empty ranges."""
        if not bounds[0] < bounds[1]:
            raise ValueError(f"the first value must be below the second, not [{bounds[0]}, {bounds[1]}]")
        return bounds


class Uniform(_Range):
    """The searcher picks a real number from a range."""

    uniform: tuple[float, float]
    """The lowest and the highest value."""


class LogUniform(_Range):
    """The searcher picks a real number from a range, uniformly in its logarithm."""

    loguniform: tuple[float, float]
    """The lowest (above 0) and the highest value."""

    @model_validator(mode="after")
    def low_is_positive(self) -> "LogUniform":
        """Rejects ranges without a logarithm."""
        if self.loguniform[0] <= 0:
            raise ValueError("the first value of loguniform must be above 0")
        return self


class RandInt(_Range):
    """The searcher picks a whole number from a range, ends included."""

    randint: tuple[int, int]
    """The lowest and the highest value."""


class Exact(Strict):
    """One value for each distinct module selection, computed from the alignment profile after the fine-tune."""

    exact: Annotated[int, Field(ge=2)] = 64
    """The maximum number of values; if there are more, an evenly spaced subset is tried."""

    @model_validator(mode="before")
    @classmethod
    def by_name_alone(cls, value: object) -> object:
        """Accepts the bare word `exact`."""
        return {} if value == "exact" else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Returns a schema with the bare word, for editors of sweep files."""
        return {"anyOf": [{"const": "exact"}, handler(core)]}


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


def _by_form(*more: str) -> Discriminator:
    """Returns the discriminator between constants and search spaces; its error message lists what is allowed."""
    spaces = ", ".join(name for name in SPACES if name != "exact")
    numbers = ", ".join(["a number", *more])
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
"""A real number, or a space of them to search."""
Whole = Annotated[_Wholes, _by_form()]
"""A whole number, or a space of them to search."""


PER_TYPE = "by type"


def _scope(value: object) -> str:
    return PER_TYPE if isinstance(value, dict) and value and not set(value) & set(SPACES) else "value"


_by_scope = Discriminator(_scope)
_RealOrExact = Annotated[_Reals | Annotated[Exact, Tag("exact")], _by_form("exact")]
_WholeOrExact = Annotated[_Wholes | Annotated[Exact, Tag("exact")], _by_form("exact")]
RealLevel = Annotated[
    Annotated[_RealOrExact, Tag("value")] | Annotated[dict[str, _RealOrExact], Tag(PER_TYPE)],
    _by_scope,
]
"""A real value of a selection criterion: one for all modules, or one per module type."""
WholeLevel = Annotated[
    Annotated[_WholeOrExact, Tag("value")] | Annotated[dict[str, _WholeOrExact], Tag(PER_TYPE)],
    _by_scope,
]
"""A whole value of a selection criterion: one for all modules, or one per module type."""


def searched(key: str, value: object) -> dict[str, Strict]:
    """Returns the search spaces in a setting by dotted key: none for a constant, up to one per module type."""
    if isinstance(value, dict):
        return {
            dotted: space for kind, inner in value.items() for dotted, space in searched(f"{key}.{kind}", inner).items()
        }
    return {key: value} if isinstance(value, Strict) else {}


def at_point(key: str, value: object, point: dict[str, Any]) -> Any:
    """Returns a setting with its search spaces replaced by a point's values."""
    if isinstance(value, dict):
        return {kind: at_point(f"{key}.{kind}", inner, point) for kind, inner in value.items()}
    return point.get(key, value)


def allows(space: object, value: float) -> bool:
    """Returns whether a value may be tried in a search space: in a range or one of the choices; grids take others."""
    if isinstance(space, Choice):
        return value in values_of(space)
    if isinstance(space, _Range):
        low, high = values_of(space)
        return bool(low <= value <= high) and (not isinstance(space, RandInt) or value == int(value))
    return True


def values_of(value: object) -> list[Any]:
    """Returns a setting's constants, list entries and range ends, for checking against limits."""
    if isinstance(value, dict):
        return [number for inner in value.values() for number in values_of(inner)]
    if isinstance(value, Exact):  # computed from the modules, so always within the limits
        return []
    if isinstance(value, Strict):
        return list(getattr(value, next(iter(type(value).model_fields))))
    return [value]


def within(low: float, high: float) -> AfterValidator:
    """Limits a constant or every value of a search space."""

    def check(value: object) -> object:
        for number in values_of(value):
            if not low <= number <= high:
                raise ValueError(f"must be between {low:g} and {high:g}, not {number:g}")
        return value

    return AfterValidator(check)
