"""Which modules a defense acts on: those whose update agrees least with the alignment.

Pure numbers, so that a sweep can be planned without torch.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypedDict, cast

from safecomm.errors import DefenseError

DIGITS = 5
"""Both reference implementations compare rho at five decimals, so a threshold taken from their logs works here."""
Setting = float | Mapping[str, float]
"""One value for all modules, or module type -> value, e.g. `{"q_proj": 0.6, "v_proj": 0.85}`; modules of types that it
leaves out are not selected."""


@dataclass(frozen=True)
class ModuleProfile:
    """How one module's update dW relates to the alignment V of that module."""

    name: str
    """The module."""
    rho: float
    """cos(C dW, dW); 0 where dW or C dW is zero, as in the reference code."""
    null: float
    """rho of a random V of that shape, 1 / sqrt(1 + d_out / d_in)."""
    v_norm: float
    """||V||_F."""
    update_norm: float
    """||dW||_F, scaling included."""
    projected_norm: float
    """||C dW||_F, scaling included."""


class Selection(TypedDict, total=False):
    """The ways of selecting modules; give one. rho is rounded to five decimals first."""

    threshold: Setting | None
    """The modules whose rho is at most this (SafeLoRA), or below it (SafeMERGE); -1 to 1."""
    lowest: Setting | None
    """This many modules, those of the lowest rho, and all that tie with the last one; 0 selects none."""
    quantile: Setting | None
    """The same for a share of the modules, 0 to 1, rounded to the nearest number of them; 1 selects all."""
    above_null: Setting | None
    """The modules whose rho exceeds that of a random V of their shape by at most this (by less, if strict). Unlike a
    threshold, one value means the same for square and flat modules."""


WAYS = tuple(Selection.__annotations__)


def select(modules: Sequence[ModuleProfile], by: Selection, *, strict: bool = False) -> list[str]:
    """Returns the selected modules, in the order of the layers.

    Args:
        modules: a profile's modules.
        by: the way of selecting.
        strict: select below `threshold` and `above_null` only.

    Raises:
        DefenseError: where there is no way of selecting, or several, or an impossible value.
    """
    settings = cast(Mapping[str, Setting | None], by)
    given = {way: setting for way, setting in settings.items() if setting is not None}
    if len(given) != 1:
        raise DefenseError(
            f"give exactly one of {', '.join(WAYS)} to select modules by, not {', '.join(given) or 'none'}"
        )
    way, setting = next(iter(given.items()))
    rho = _measured(modules, way)
    selected: set[str] = set()
    for value, names in _groups(rho, way, setting):
        selected |= _select_among({name: rho[name] for name in names}, way, value, strict)
    return [name for name in rho if name in selected]


def breakpoints(modules: Sequence[ModuleProfile], way: str = "threshold") -> list[float]:
    """Returns a value for each distinct outcome of a way of selecting, from none selected to all.

    For `threshold` and `above_null` these lie halfway between neighbouring modules, so that they select the same
    whether strict or not: n modules have at most n + 1 outcomes, and a search over the real line is one over these.

    Args:
        modules: a profile's modules.
        way: `threshold`, `above_null`, `lowest` or `quantile`.

    Raises:
        DefenseError: where there is no such way.
    """
    if way not in WAYS:
        raise DefenseError(f"there is no way of selecting modules by {way!r}; take one of {', '.join(WAYS)}")
    rho = sorted(_measured(modules, way).values())
    if way in ("lowest", "quantile"):
        counts = [0, *(place + 1 for place, own in enumerate(rho) if rho[place + 1 : place + 2] != [own])]
        return [float(count) if way == "lowest" else count / len(rho) for count in counts]
    distinct = sorted(set(rho))
    half = 0.5 * 10**-DIGITS
    ends = [distinct[0] - half, *((low + high) / 2 for low, high in pairwise(distinct))]
    points = [round(value, DIGITS + 1) for value in [*ends, distinct[-1] + half]]
    return [max(-1.0, min(1.0, value)) for value in points] if way == "threshold" else points


def _measured(modules: Sequence[ModuleProfile], way: str) -> dict[str, float]:
    """Returns what each module is selected by."""
    above = way == "above_null"
    return {module.name: round(module.rho - (module.null if above else 0.0), DIGITS) for module in modules}


def _groups(rho: Mapping[str, float], way: str, setting: Setting) -> list[tuple[float, list[str]]]:
    """Returns the values with the modules that each is for."""
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
            raise DefenseError(f"quantile must lie between 0 and 1, not {value:g}")
        return _lowest(rho, math.floor(value * len(rho) + 0.5))
    if way == "threshold" and not -1 <= value <= 1:
        raise DefenseError(f"threshold must lie between -1 and 1, as rho does, not {value:g}")
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
