"""Reads a run's human labels from `judges.json`: how well the judges agree with them, or labels of its own answers."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safecomm.errors import UsageError
from safecomm.report.run_files import read_json
from safecomm.statistics.comparisons import JudgeAccuracy
from safecomm.statistics.metrics import Rate
from safecomm.storage.names import JUDGES


@dataclass(frozen=True)
class HumanLabels:
    """What people's labels say of a run."""

    judges: dict[str, JudgeAccuracy]
    """The judges' agreement with the labels, the deciding judge first; empty if it was not measured."""
    drawn: dict[str, bool]
    """Answer of this run -> whether it is unsafe, for labels that were drawn from it."""


def read_labels(run: Path) -> HumanLabels:
    """Returns a run's labels; both parts are empty if it has none.

    Raises:
        UsageError: if `judges.json` is broken.
    """
    if not (run / JUDGES).is_file():
        return HumanLabels({}, {})
    found = read_json(run, JUDGES)
    try:
        judges = {
            str(name): JudgeAccuracy(**{part: _rate(one) for part, one in rates.items()})
            for name, rates in found["judges"].items()
        }
        return HumanLabels(judges, {str(answer): bool(unsafe) for answer, unsafe in found.get("drawn", {}).items()})
    except (AttributeError, KeyError, TypeError) as error:
        raise UsageError(f"{run / JUDGES}: is damaged; run the sweep again to rewrite it") from error


def _rate(values: dict[str, Any]) -> Rate:
    return Rate(**values | {"value": math.nan if values["value"] is None else values["value"]})
