"""Grades a generated answer against a reference answer by rules: `right`, `wrong` or `unscored`."""

import math
import re
from collections.abc import Callable
from typing import Literal

Grade = Literal["right", "wrong", "unscored"]

_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_GROUP = re.compile(r"([A-Z]+\d+(?:-[A-Z]+)?)")
TOLERANCE = 1e-6
"""Relative tolerance; numbers are compared as numbers, so `5.0` equals `5`."""


def boxed_number(response: str, reference: str) -> Grade:
    r"""Compares the last \boxed{...} with the reference like GSMA's TeleMath: as numbers if possible, else as text."""
    found = _BOXED.findall(response)
    if not found:
        return "unscored" if not response.strip() else "wrong"
    ours, theirs = _number(found[-1]), _number(reference)
    if ours is not None and theirs is not None:
        return "right" if math.isclose(ours, theirs, rel_tol=TOLERANCE, abs_tol=0.0) or ours == theirs else "wrong"
    return "right" if _plain(found[-1]) == _plain(reference) else "wrong"


def boxed_integer(response: str, reference: str) -> Grade:
    r"""Compares the first whole number in the last \boxed{...}, like GSMA's TeleLogs in its soft mode."""
    found = _BOXED.findall(response)
    ours, theirs = (re.search(r"\d+", text) for text in (found[-1] if found else "", reference))
    if not response.strip() or theirs is None:
        return "unscored"
    return "right" if ours is not None and int(ours[0]) == int(theirs[0]) else "wrong"


def working_group(response: str, reference: str) -> Grade:
    """Compares the first code of a 3GPP working group, e.g. RAN1 or SA2, like GSMA's 3gpp_tsg."""
    if not response.strip():
        return "unscored"
    found = _GROUP.search(response)
    return "right" if found and found[1].casefold() == reference.strip().casefold() else "wrong"


GRADERS: dict[str, Callable[[str, str], Grade]] = {
    "boxed-number": boxed_number,
    "boxed-integer": boxed_integer,
    "working-group": working_group,
}


def _number(text: str) -> float | None:
    """Returns the number in a text, ignoring a unit or LaTeX around it, or None if there is not exactly one."""
    found = _NUMBER.findall(text.replace("\\,", "").replace("\\times 10^", "e").replace("{", "").replace("}", ""))
    return float(found[0].replace(",", "")) if len(found) == 1 else None


def _plain(text: str) -> str:
    return re.sub(r"\s+", "", text).casefold()
