"""The table of a sweep's trials, a row per record."""

from collections.abc import Sequence

import pandas as pd

from safecomm.report.original import beside_original
from safecomm.search.record import TrialRecord
from safecomm.storage.store import Store

TEXTS = ("data", "log", "adapter", "adapter_path", "finetune", "profile", "evaluation")
"""The columns of text that not every record has."""


def table_of(records: Sequence[TrialRecord], store: Store) -> pd.DataFrame:
    """Returns a row per record, with the columns `REFUSAL_RISE`."""
    table = pd.DataFrame([record.to_row() for record in records])
    for column in TEXTS:
        table[column] = table[column].fillna("") if column in table else ""
    return beside_original(table, store)
