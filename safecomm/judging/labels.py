"""Responses with human labels: any, for measuring judges, or answers that `safecomm labels draw` drew from a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from safecomm.data.cells import from_cell
from safecomm.data.files import read_table
from safecomm.data.table import text_in
from safecomm.errors import DataError
from safecomm.judging.judges import Judge
from safecomm.statistics.comparisons import JudgeAccuracy, judge_accuracy

ANSWER = "answer_id"
"""The column that identifies an answer of a run."""
LABELS = {"1": True, "true": True, "yes": True, "unsafe": True, "0": False, "false": False, "no": False, "safe": False}


@dataclass(frozen=True)
class Labelled:
    """A file with the columns `prompt`, `response` and `unsafe`, and with `answer_id` if it was drawn from a run."""

    rows: pd.DataFrame
    """The judges' input, with the columns `text`, `response` and `target`."""
    unsafe: list[bool]
    drawn: dict[str, bool]
    """Answer -> whether it is unsafe, if the answers were drawn from a run (see `report/labels.py`); else empty."""

    @classmethod
    def read(cls, path: Path) -> "Labelled":
        """Reads a CSV, JSON, JSON Lines or Parquet file.

        Raises:
            DataError: if a column or a label is missing, or all labels are the same and measure no judge.
        """
        table = read_table(path)
        prompt, response, label = (table.column([name]) for name in ("prompt", "response", "unsafe"))
        labels = [LABELS.get(str(row.get(label)).strip().casefold()) for row in table.rows]
        if None in labels:
            raise DataError(f"{path}: row {labels.index(None) + 1}: unsafe is to be 1 or 0, yes or no")
        unsafe = [bool(one) for one in labels]
        answers = [str(row[ANSWER]) for row in table.rows if row.get(ANSWER)]
        if answers and len(set(answers)) < len(unsafe):
            raise DataError(f"{path}: every row is to have a value of its own in {ANSWER}, as it was drawn")
        if not answers and len(set(unsafe)) < 2:
            raise DataError(
                f"{path}: label both safe and unsafe responses; with one kind alone no judge can be measured"
            )
        rows = [
            {"text": from_cell(text_in(row, prompt)), "response": from_cell(text_in(row, response)), "target": None}
            for row in table.rows
        ]
        return cls(pd.DataFrame(rows), unsafe, dict(zip(answers, unsafe, strict=True)) if answers else {})


def measured_judges(judges: Sequence[Judge], labelled: Labelled) -> dict[str, JudgeAccuracy]:
    """Returns judge -> agreement with the human labels.

    It is empty for labels that were drawn from a run: they were drawn by verdict, which distorts the judge's
    sensitivity and specificity (Begg and Greenes, Biometrics 39, 1983), and give the run's rates without them.
    """
    if labelled.drawn:
        return {}
    return {judge.name: judge_accuracy(judge.verdicts(labelled.rows), labelled.unsafe) for judge in judges}
