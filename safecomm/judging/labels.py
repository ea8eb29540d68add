"""Responses with human labels, for measuring judges."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from safecomm.data.files import read_table
from safecomm.data.table import text_in
from safecomm.errors import DataError
from safecomm.judging.judges import Judge
from safecomm.statistics.comparisons import JudgeAccuracy, judge_accuracy

LABELS = {"1": True, "true": True, "yes": True, "unsafe": True, "0": False, "false": False, "no": False, "safe": False}


@dataclass(frozen=True)
class Labelled:
    """A file with the columns `prompt`, `response` and `unsafe`."""

    rows: pd.DataFrame
    """The judges' input, with the columns `text`, `response` and `target`."""
    unsafe: list[bool]

    @classmethod
    def read(cls, path: Path) -> "Labelled":
        """Reads a CSV, JSON, JSON Lines or Parquet file.

        Raises:
            DataError: if a column or a label is missing, or all labels are the same.
        """
        table = read_table(path)
        prompt, response, label = (table.column([name]) for name in ("prompt", "response", "unsafe"))
        labels = [LABELS.get(str(row.get(label)).strip().casefold()) for row in table.rows]
        if None in labels:
            raise DataError(f"{path}: row {labels.index(None) + 1}: unsafe is to be 1 or 0, yes or no")
        unsafe = [bool(one) for one in labels]
        if len(set(unsafe)) < 2:
            raise DataError(
                f"{path}: label both safe and unsafe responses; with one kind alone no judge can be measured"
            )
        rows = [
            {"text": text_in(row, prompt), "response": text_in(row, response), "target": None} for row in table.rows
        ]
        return cls(pd.DataFrame(rows), unsafe)


def measured_judges(judges: Sequence[Judge], labelled: Labelled) -> dict[str, JudgeAccuracy]:
    """Returns judge -> agreement with the human labels."""
    return {judge.name: judge_accuracy(judge.verdicts(labelled.rows), labelled.unsafe) for judge in judges}
