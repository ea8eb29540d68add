"""Which modules a defense acts on: those whose update agrees least with the alignment."""

from safecomm.defenses.alignment import Profile
from safecomm.errors import UsageError

DIGITS = 5
"""Both reference implementations compare rho at five decimals, so a threshold taken from their logs works here."""


def select(
    profile: Profile, *, threshold: float | None = None, lowest: int | None = None, strict: bool = False
) -> list[str]:
    """Returns the selected modules, in the order of the layers.

    Args:
        profile: the adapter's alignment profile.
        threshold: select the modules whose rho, rounded to five decimals, is at most this.
        lowest: select this many modules, those of the lowest rounded rho, and all that tie with the last one; 0 selects
            none.
        strict: with `threshold`, select below it only.

    Raises:
        UsageError: where not exactly one way of selecting is given, or `lowest` is negative.
    """
    rho = {module.name: round(module.rho, DIGITS) for module in profile.modules}
    if threshold is not None and lowest is None:
        return [name for name, value in rho.items() if value < threshold or (value == threshold and not strict)]
    if lowest is not None and threshold is None:
        return _lowest(rho, lowest)
    raise UsageError("give either threshold or lowest to select modules by")


def _lowest(rho: dict[str, float], count: int) -> list[str]:
    if count < 0:
        raise UsageError(f"lowest must be 0 or more, not {count}")
    if count == 0:
        return []
    highest = sorted(rho.values())[:count][-1]
    return [name for name, value in rho.items() if value <= highest]
