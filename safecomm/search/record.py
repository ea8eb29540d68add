"""The record that a trial leaves: a JSON file in the run folder, and a row of `trials.parquet`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, Literal, Self

from pydantic import TypeAdapter

from safecomm.search.arms import Trial
from safecomm.statistics.metrics import Rate, as_columns, from_columns

Status = Literal["done", "stopped", "failed"]
NOT_IN_THE_TABLE = ("context", "traceback")


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """What a trial gave. None is left out of the file, and empty in the table: what the trial did not get to.

    The fields stand in the order of the table's columns. The docstrings are their documentation.
    """

    trial: str
    """The trial's id, the same in every run."""
    arm: str
    """`original`, `undefended` or an arm of the sweep."""
    point: str
    """The searched settings, a JSON object: `defense.setting` -> value."""
    seed: int
    """The seed of the fine-tune."""
    split: str
    """The prompts that it was measured on: `search` or `report`; `train` for a fine-tune that arms share."""
    error: str = ""
    """Why it failed, in one line; empty unless it did."""
    context: str = ""
    """A hash of the model, the fine-tune and the benchmarks: the record holds for these."""
    status: Status
    """`done`, `stopped` (early, by racing) or `failed`."""
    traceback: str | None = None
    """Where it failed."""
    reason: str | None = None
    """Why racing stopped it; empty if it did not."""
    share: float | None = None
    """The share of the split's prompts that it was measured on; less than 1 where racing stopped it."""
    data: str | None = None
    """The names of the training sets, joined by `+`; the folder of an adapter that was given."""
    adapter: str | None = None
    """A hash of the adapter's weights; empty for `original`."""
    adapter_path: str | None = None
    """The folder of the adapter."""
    finetune: str | None = None
    """The fine-tune's key in the store."""
    profile: str | None = None
    """The alignment profile's key in the store; empty where no defense needs one."""
    evaluation: str | None = None
    """The key of its answers and verdicts in the store."""
    seconds: float | None = None
    """How long the trial took."""
    rates: Mapping[str, Rate] = field(default_factory=dict)
    """metric -> rate; five columns each."""
    log: str | None = None
    """The file or URL of its log."""

    @classmethod
    def of(cls, trial: Trial, status: Status, **known: Any) -> Self:
        """Returns the record of a trial, with what else is known of it."""
        point = json.dumps(trial.point, sort_keys=True)
        place: dict[str, Any] = {
            "trial": trial.id,
            "arm": trial.arm,
            "point": point,
            "seed": trial.seed,
            "split": trial.split,
        }
        return cls(**place, status=status, **known)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> "TrialRecord":
        """Returns the record that `to_json` made these values of; other keys are ignored.

        Raises:
            ValueError: where a value is missing or of another type.
        """
        return _reader().validate_python({**values, "rates": from_columns(values)})

    def to_json(self) -> dict[str, Any]:
        """Returns the record as one flat object, its rates as `as_columns` writes them."""
        flat: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            flat |= as_columns(value) if one.name == "rates" else {} if value is None else {one.name: value}
        return flat

    def to_row(self) -> dict[str, Any]:
        """Returns the record as a row of `trials.parquet`."""
        return {name: value for name, value in self.to_json().items() if name not in NOT_IN_THE_TABLE}

    def value(self, metric: str) -> float:
        """Returns a rate's value; NaN where there is no such rate, or no verdict."""
        return self.rates[metric].value if metric in self.rates else float("nan")


@cache
def _reader() -> TypeAdapter[TrialRecord]:
    return TypeAdapter(TrialRecord)
