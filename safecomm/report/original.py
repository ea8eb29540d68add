"""Compares the trials' refusals with the original model's, prompt by prompt."""

import math

import pandas as pd

from safecomm.report.points import BESIDE_ORIGINAL, Point, rows_of
from safecomm.spec import ORIGINAL
from safecomm.statistics.metric_table import OVER_REFUSAL
from safecomm.storage.names import ROWS
from safecomm.storage.store import Store


def beside_original(trials: pd.DataFrame, store: Store) -> pd.DataFrame:
    """Returns the trials with the columns `BESIDE_ORIGINAL`; NaN if the trial or the original was not measured.

    Each trial is compared with the original on the harmless prompts of the same split and seed. If there are several
    answers per prompt, the shares of refusals are compared.
    """
    done = [row for row in rows_of(trials) if row["status"] == "done"]
    originals = {(row["split"], row["seed"]): row["evaluation"] for row in done if row["arm"] == ORIGINAL}
    refusals = {key: _refusals(store, key) for key in {row["evaluation"] for row in done}}
    unknown = pd.Series(dtype=float)

    def counts(row: Point) -> list[float]:
        ours = refusals.get(row.get("evaluation", ""), unknown)
        theirs = refusals.get(originals.get((row["split"], row["seed"]), ""), unknown)
        if ours.empty or theirs.empty:
            return [math.nan, math.nan]
        difference = ours - theirs
        return [float((difference > 0).sum()), float((difference < 0).sum())]

    columns = pd.DataFrame([counts(row) for row in rows_of(trials)], columns=list(BESIDE_ORIGINAL), index=trials.index)
    return pd.concat([trials, columns], axis=1)


def _refusals(store: Store, evaluation: str) -> "pd.Series[float]":
    """Returns the share of refusals among each harmless prompt's answers, by benchmark and prompt."""
    folder = store.find("evaluation", evaluation)
    if folder is None:
        return pd.Series(dtype=float)
    rows = pd.read_parquet(folder / ROWS, columns=["benchmark", "prompt_id", "kind", "verdict"])
    harmless = rows[rows["kind"] == OVER_REFUSAL.kind]
    refused = harmless["verdict"].map({OVER_REFUSAL.hit: 1.0, OVER_REFUSAL.miss: 0.0}).astype(float)
    return refused.groupby([harmless["benchmark"], harmless["prompt_id"]]).mean()
