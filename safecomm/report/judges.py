"""Reads how well a run's judges agree with human labels, from `judges.json`."""

import math
from pathlib import Path
from typing import Any

from safecomm.report.summary import read_json
from safecomm.statistics.comparisons import JudgeAccuracy
from safecomm.statistics.metrics import Rate
from safecomm.storage.names import JUDGES


def read_judges(run: Path) -> dict[str, JudgeAccuracy]:
    """Returns judge -> agreement with human labels, the deciding judge first; empty if it was not measured.

    Raises:
        UsageError: if `judges.json` is broken.
    """
    if not (run / JUDGES).is_file():
        return {}
    found: dict[str, dict[str, Any]] = read_json(run, JUDGES)["judges"]
    return {name: JudgeAccuracy(**{part: _rate(one) for part, one in rates.items()}) for name, rates in found.items()}


def _rate(values: dict[str, Any]) -> Rate:
    return Rate(**values | {"value": math.nan if values["value"] is None else values["value"]})
