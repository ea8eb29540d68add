"""Reads how well a run's judges agree with human labels, from `judges.json`."""

import math
from pathlib import Path
from typing import Any

from safecomm.errors import UsageError
from safecomm.report.run_files import read_json
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
    found = read_json(run, JUDGES)
    try:
        return {
            str(name): JudgeAccuracy(**{part: _rate(one) for part, one in rates.items()})
            for name, rates in found["judges"].items()
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise UsageError(f"{run / JUDGES}: is damaged; run the sweep again to rewrite it") from error


def _rate(values: dict[str, Any]) -> Rate:
    return Rate(**values | {"value": math.nan if values["value"] is None else values["value"]})
