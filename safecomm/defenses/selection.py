"""Which modules a defense acts on: those whose update agrees least with the alignment."""

import math
from collections.abc import Mapping
from typing import Any

from safecomm.defenses.alignment import Profile
from safecomm.errors import UsageError

DIGITS = 5
"""Both reference implementations compare rho at five decimals, so a threshold taken from their logs works here."""
WAYS = ("threshold", "lowest", "quantile", "above_null")


def select(profile: Profile, settings: Mapping[str, Any], *, strict: bool = False) -> list[str]:
    """Returns the selected modules, in the order of the layers.

    The settings hold one of these; rho is rounded to five decimals first:

    - `threshold`: the modules whose rho is at most this (SafeLoRA), or below it (SafeMERGE).
    - `lowest`: this many modules, those of the lowest rho, and all that tie with the last one; 0 selects none.
    - `quantile`: the same for a share of the modules, 0 to 1, rounded to the nearest number of them.
    - `above_null`: the modules whose rho exceeds that of a random V of their shape by at most this (less if strict);
      unlike for `threshold`, one value means the same for square and flat modules.

    Args:
        profile: the adapter's alignment profile.
        settings: the settings of the defense; those that don't select are left alone.
        strict: select below `threshold` and `above_null` only.

    Raises:
        UsageError: where the settings hold none or several ways of selecting, or an impossible value.
    """
    given = {way: settings[way] for way in WAYS if settings.get(way) is not None}
    if len(given) != 1:
        raise UsageError(
            f"give exactly one of {', '.join(WAYS)} to select modules by, not {', '.join(given) or 'none'}"
        )
    way, value = next(iter(given.items()))
    null = {module.name: module.null if way == "above_null" else 0.0 for module in profile.modules}
    rho = {module.name: round(module.rho - null[module.name], DIGITS) for module in profile.modules}
    if way == "lowest":
        return _lowest(rho, value)
    if way == "quantile":
        return _lowest(rho, _share(len(rho), value))
    return [name for name, own in rho.items() if own < value or (own == value and not strict)]


def _lowest(rho: Mapping[str, float], count: int) -> list[str]:
    if count < 0:
        raise UsageError(f"lowest must be 0 or more, not {count}")
    if count == 0:
        return []
    highest = sorted(rho.values())[:count][-1]
    return [name for name, own in rho.items() if own <= highest]


def _share(count: int, quantile: float) -> int:
    if not 0 <= quantile <= 1:
        raise UsageError(f"quantile must lie between 0 and 1, not {quantile:g}")
    return math.floor(quantile * count + 0.5)
