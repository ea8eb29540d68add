"""Selects the modules that a defense acts on: those whose update agrees least with the alignment.

It does not need torch, so that planning a sweep does not either.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypedDict, cast

from safecomm.errors import DefenseError

DIGITS = 5
"""Both reference implementations round rho to five decimals, so thresholds from their logs can be used."""
Setting = float | Mapping[str, float]
"""One value for all modules, or module type -> value, e.g. `{"q_proj": 0.6, "v_proj": 0.85}`; other module types are
not selected."""


@dataclass(frozen=True)
class ModuleProfile:
    """The relation of one module's update dW to its alignment V."""

    name: str
    """The module's name."""
    rho: float
    """cos(C dW, dW); 0 if dW or C dW is zero, as in the reference code."""
    null: float
    """rho for a random V of the same shape, 1 / sqrt(1 + d_out / d_in)."""
    v_norm: float
    """||V||_F."""
    update_norm: float
    """||dW||_F, scaling included."""
    projected_norm: float
    """||C dW||_F, scaling included."""


class Selection(TypedDict, total=False):
    """The selection criteria, exactly one of which must be set. rho is rounded to five decimals first."""

    threshold: Setting | None
    """Modules with rho at most this (SafeLoRA) or below it (SafeMERGE); -1 to 1."""
    lowest: Setting | None
    """This number of modules with the lowest rho, plus ties; 0 selects none."""
    quantile: Setting | None
    """Like `lowest`, as a share of the modules (0 to 1), rounded to the nearest count; 1 selects all."""
    above_null: Setting | None
    """Modules whose rho exceeds `null` by at most this (by less than this if strict). Unlike a threshold, a value is
    comparable between square and rectangular modules."""


WAYS = tuple(Selection.__annotations__)


def select(modules: Sequence[ModuleProfile], by: Selection, *, strict: bool = False) -> list[str]:
    """Returns the selected modules in layer order.

    Args:
        modules: a profile's modules.
        by: the criterion.
        strict: whether `threshold` and `above_null` exclude equality.

    Raises:
        DefenseError: if not exactly one criterion is set, or its value is out of range.
    """
    settings = cast(Mapping[str, Setting | None], by)
    given = {way: setting for way, setting in settings.items() if setting is not None}
    if len(given) != 1:
        raise DefenseError(f"set exactly one of {', '.join(WAYS)} to select modules, not {', '.join(given) or 'none'}")
    way, setting = next(iter(given.items()))
    rho = _measured(modules, way)
    selected: set[str] = set()
    for value, names in _groups(rho, way, setting):
        if not math.isfinite(value):
            raise DefenseError(f"{way} must be a finite number, not {value:g}")
        selected |= _select_among({name: rho[name] for name in names}, way, value, strict)
    return [name for name in rho if name in selected]


def breakpoints(modules: Sequence[ModuleProfile], way: str = "threshold") -> list[float]:
    """Returns one value of a criterion for each distinct selection, from no modules to all.

    For `threshold` and `above_null` the values lie halfway between neighbouring modules, so `strict` does not matter. n
    modules have at most n + 1 distinct selections, so a search over these values covers all real numbers.

    Args:
        modules: a profile's modules.
        way: `threshold`, `above_null`, `lowest` or `quantile`.

    Raises:
        DefenseError: if `way` is unknown.
    """
    if way not in WAYS:
        raise DefenseError(f"can't select modules by {way!r}; use one of {', '.join(WAYS)}")
    rho = sorted(_measured(modules, way).values())
    if way in ("lowest", "quantile"):
        counts = [0, *(index + 1 for index, own in enumerate(rho) if rho[index + 1 : index + 2] != [own])]
        return [float(count) if way == "lowest" else count / len(rho) for count in counts]
    distinct = sorted(set(rho))
    half = 0.5 * 10**-DIGITS
    ends = [distinct[0] - half, *((low + high) / 2 for low, high in pairwise(distinct))]
    points = [round(value, DIGITS + 1) for value in [*ends, distinct[-1] + half]]
    return [max(-1.0, min(1.0, value)) for value in points] if way == "threshold" else points


def _measured(modules: Sequence[ModuleProfile], way: str) -> dict[str, float]:
    """Returns the value by which each module is selected."""
    above = way == "above_null"
    return {module.name: round(module.rho - (module.null if above else 0.0), DIGITS) for module in modules}


def _groups(rho: Mapping[str, float], way: str, setting: Setting) -> list[tuple[float, list[str]]]:
    """Returns each value with the modules that it applies to."""
    if not isinstance(setting, Mapping):
        return [(setting, list(rho))]
    types = {module_type(name) for name in rho}
    if unknown := sorted(set(setting) - types):
        raise DefenseError(
            f"{way}: the adapter has no {', '.join(unknown)}; its module types are {', '.join(sorted(types))}"
        )
    return [(value, [name for name in rho if module_type(name) == kind]) for kind, value in setting.items()]


def _select_among(rho: Mapping[str, float], way: str, value: float, strict: bool) -> set[str]:
    if way == "lowest":
        return _lowest(rho, value)
    if way == "quantile":
        if not 0 <= value <= 1:
            raise DefenseError(f"quantile must be between 0 and 1, not {value:g}")
        return _lowest(rho, math.floor(value * len(rho) + 0.5))
    if way == "threshold" and not -1 <= value <= 1:
        raise DefenseError(f"threshold must be between -1 and 1, like rho, not {value:g}")
    return {name for name, own in rho.items() if own < value or (own == value and not strict)}


def _lowest(rho: Mapping[str, float], count: float) -> set[str]:
    if count < 0 or count != int(count):
        raise DefenseError(f"lowest must be a whole number, 0 or more, not {count:g}")
    if count == 0:
        return set()
    highest = sorted(rho.values())[: int(count)][-1]
    return {name for name, own in rho.items() if own <= highest}


def module_type(name: str) -> str:
    """Returns the last part of a module's name, e.g. `q_proj`."""
    return name.rpartition(".")[2]
