"""The rise in over-refusal of every trial above the original model, on the same prompts."""

import math

import pandas as pd

from safecomm.judging.results import paired
from safecomm.judging.verdicts import read_rows
from safecomm.report.points import REFUSAL_RISE, Point, rows_of
from safecomm.search.arms import RELEASE
from safecomm.spec import ORIGINAL
from safecomm.statistics.comparisons import paired_difference
from safecomm.statistics.metric_table import OVER_REFUSAL
from safecomm.storage.store import Store


def beside_original(trials: pd.DataFrame, store: Store) -> pd.DataFrame:
    """Returns the trials with the columns `REFUSAL_RISE`: the over-refusal above the original's, and its 95% interval.

    The original is measured once per split and compared with every seed (see `paired_difference`). NaN if a trial or
    the original was not measured on harmless prompts, and on the prompts that are kept for the gate.
    """
    done = [row for row in rows_of(trials) if row["status"] == "done" and row["split"] != RELEASE]
    originals = {row["split"]: row["evaluation"] for row in done if row["arm"] == ORIGINAL}
    answers = {key: _harmless(store, key) for key in {row["evaluation"] for row in done}}

    def rise(row: Point) -> list[float]:
        ours, theirs = answers.get(row.get("evaluation", "")), answers.get(originals.get(row["split"], ""))
        if row["status"] != "done" or row["split"] == RELEASE or ours is None or theirs is None:
            return [math.nan] * 3
        if not (pairs := paired(ours, theirs, OVER_REFUSAL)):
            return [math.nan] * 3
        found = paired_difference(pairs)
        return [found.value, found.low, found.high]

    columns = pd.DataFrame([rise(row) for row in rows_of(trials)], columns=list(REFUSAL_RISE), index=trials.index)
    return pd.concat([trials, columns], axis=1)


def _harmless(store: Store, evaluation: str) -> pd.DataFrame | None:
    """Returns the rows of an evaluation's harmless prompts; None if it is gone or has none."""
    folder = store.find("evaluation", evaluation)
    if folder is None:
        return None
    rows = read_rows(folder)
    harmless = rows[rows["kind"] == OVER_REFUSAL.kind]
    return harmless if len(harmless) else None
