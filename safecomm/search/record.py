"""The record of a trial: a JSON file in the run folder and a row of `trials.parquet`."""

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
    """The result of a trial.

    A field is None if the trial ended before setting it; it is then absent in the file and empty in the table. The
    fields are in the order of the table's columns, and their docstrings document the columns.
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
    """The prompts on which it was measured: `search`, `report`, `tamper` or `drift`; `train` for a fine-tune."""
    error: str = ""
    """Why the trial failed, in one line; empty if it did not."""
    context: str = ""
    """A hash of the model, the fine-tune and the benchmarks for which the record is valid."""
    status: Status
    """`done`, `stopped` (early, by racing) or `failed`."""
    traceback: str | None = None
    """The traceback of a failed trial."""
    reason: str | None = None
    """Why racing stopped the trial; empty if it did not."""
    share: float | None = None
    """The share of the split's prompts on which it was measured; less than 1 if racing stopped it."""
    compared_seeds: int | None = None
    """If racing stopped the trial: the seeds over which it compared the trial's point; empty for one."""
    data: str | None = None
    """The names of the training sets, joined by `+`; for a given adapter, its folder."""
    adapter: str | None = None
    """A hash of the adapter's weights; empty for `original`."""
    adapter_path: str | None = None
    """The folder of the adapter."""
    finetune: str | None = None
    """The fine-tune's key in the store."""
    profile: str | None = None
    """The alignment profile's key in the store; empty if no defense needs one."""
    tamper: str | None = None
    """With the split `tamper`: on what the adapter was trained further, `data`, `harmful` or `data_then_harmful`."""
    steps: int | None = None
    """With the split `tamper`: the steps of the further training."""
    learning_rate: float | None = None
    """With the split `tamper`: the learning rate of the further training, if the sweep lists several."""
    generation: int | None = None
    """With the split `drift`: the number of fine-tunes since the sweep's own."""
    start: str | None = None
    """With the split `drift`: what the generation trained, `continue`, `merge` or `pool`."""
    policy: str | None = None
    """With the split `drift`: when the defense is applied again."""
    order: int | None = None
    """With the split `drift`: the order of the generations; 0 is as listed."""
    applied: str | None = None
    """With the split `drift`: the settings of the defense in this generation, like `point`; empty without a defense."""
    overlap: float | None = None
    """With the split `drift`: of the modules that the defense changed now or in generation 0, the share in both."""
    asked: int | None = None
    """With the split `drift`: the prompts that the policy's decision took."""
    trained_seconds: float | None = None
    """With the split `drift`: the time of its fine-tunes' training steps, times their ranks."""
    evaluation: str | None = None
    """The key of the trial's answers and verdicts in the store."""
    seconds: float | None = None
    """The duration of the trial."""
    rates: Mapping[str, Rate] = field(default_factory=dict)
    """metric -> rate; five columns each."""
    log: str | None = None
    """The file or URL of the trial's log."""

    @classmethod
    def of(cls, trial: Trial, status: Status, **known: Any) -> Self:
        """Returns the record of a trial; `known` sets further fields."""
        point = json.dumps(trial.point, sort_keys=True)
        identity: dict[str, Any] = {
            "trial": trial.id,
            "arm": trial.arm,
            "point": point,
            "seed": trial.seed,
            "split": trial.split,
        }
        if trial.tamper:
            identity |= {"tamper": trial.tamper, "steps": trial.steps, "learning_rate": trial.learning_rate}
        if later := trial.generation:
            identity |= {"generation": later.number, "start": later.start, "policy": later.policy, "order": later.order}
        return cls(**identity, status=status, **known)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> "TrialRecord":
        """Returns the record that `to_json` wrote; other keys are ignored.

        Raises:
            ValueError: if a value is missing or has the wrong type.
        """
        return _reader().validate_python({**values, "rates": from_columns(values)})

    def to_json(self) -> dict[str, Any]:
        """Returns the record as one flat object, with its rates in the format of `as_columns`."""
        flat: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            flat |= as_columns(value) if one.name == "rates" else {} if value is None else {one.name: value}
        return flat

    def to_row(self) -> dict[str, Any]:
        """Returns the record as a row of `trials.parquet`."""
        return {name: value for name, value in self.to_json().items() if name not in NOT_IN_THE_TABLE}

    def value(self, metric: str) -> float:
        """Returns a rate's value; NaN if the rate is missing or has no verdicts."""
        return self.rates[metric].value if metric in self.rates else float("nan")


@cache
def _reader() -> TypeAdapter[TrialRecord]:
    return TypeAdapter(TrialRecord)
