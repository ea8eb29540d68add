"""Reads the files of a run folder, and refuses damaged ones with their name."""

import json
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from safecomm.data.rows import current_name
from safecomm.errors import UsageError, printable
from safecomm.storage import input_files
from safecomm.storage.names import SWEEP, TRIALS

TEXTS = ("trial", "arm", "point", "split", "status", "evaluation")
"""The columns of `trials.parquet` that everything is read by."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow")


ShownText = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
"""A name that pages, model cards and the terminal show: without newlines and other control characters."""


class _Model(_Part):
    aligned: ShownText


class _Finetune(_Part):
    data: list[dict[str, Any]] = []


class _Search(_Part):
    objectives: list[str]
    target_asr: float


class _Attacked(_Part):
    attack: dict[str, Any] | None = None


class _Evaluate(_Part):
    judges: list[str | dict[str, Any]] = []
    red_team: list[str | _Attacked] = []


class _Sweep(_Part):
    """What the report needs of `sweep.json`; other keys may come and go with versions."""

    name: ShownText
    model: _Model
    finetune: _Finetune
    arms: dict[ShownText, list[Annotated[dict[str, dict[str, Any]], Field(min_length=1, max_length=1)]]]
    search: _Search
    evaluate: _Evaluate
    tamper: dict[str, Any] | None = None
    drift: dict[str, Any] | None = None


def read_json(run: Path, name: str) -> Any:
    """Reads one of a run folder's JSON files.

    Raises:
        UsageError: if the file is missing or not valid JSON.
    """
    try:
        return input_files.read_json(run / name)
    except OSError as error:
        raise UsageError(f"{run}: can't read {name}; pass a run folder, <storage>/<name>") from error
    except ValueError as error:
        raise _damaged(run, name, str(error)) from error


def read_as(folder: Path, name: str, what: Any) -> Any:
    """Reads a JSON file of a run folder, or of a stage's folder, and checks its content.

    Args:
        folder: the folder.
        name: the file's name.
        what: a pydantic model, or another type, of what is needed of the content.

    Returns:
        The content as it was read.

    Raises:
        UsageError: if the file is missing, not valid JSON, or has other content.
    """
    raw = read_json(folder, name)
    try:
        TypeAdapter(what).validate_python(raw, strict=True)
    except (ValidationError, RecursionError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": "is nested too deeply"}
        key = ".".join(map(str, first["loc"])) or "the file"
        raise _damaged(folder, name, f"{printable(key)[:100]}: {first['msg']}") from error
    return raw


def read_saved_sweep(run: Path) -> dict[str, Any]:
    """Reads `sweep.json`, with the task benchmarks under `evaluate.task` whenever it was written.

    Raises:
        UsageError: if it is missing or damaged.
    """
    raw = read_as(run, SWEEP, _Sweep)
    raw["evaluate"] = {current_name(key): value for key, value in raw["evaluate"].items()}
    found: dict[str, Any] = raw
    return found


def read_trials(run: Path) -> pd.DataFrame:
    """Reads `trials.parquet`, a row per trial and split, and normalizes the JSON of the searched parameters.

    Raises:
        UsageError: if the run has no trials yet, or the file is damaged.
    """
    path = run / TRIALS
    if not path.is_file():
        raise UsageError(f"{run}: has no {TRIALS}, so no trial has finished; run the sweep with safecomm run")
    try:
        trials = pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _damaged(run, TRIALS, f"can't be read ({type(error).__name__})") from error
    if missing := [name for name in (*TEXTS, "seed") if name not in trials]:
        raise _damaged(run, TRIALS, f"lacks the columns {', '.join(missing)}")
    if wrong := [name for name in TEXTS if not trials[name].map(lambda value: isinstance(value, str)).all()]:
        raise _damaged(run, TRIALS, f"has values that are no text in {', '.join(wrong)}")
    metrics = [
        name for column in trials if (name := str(column).removesuffix("_n")) != column and f"{name}_low" in trials
    ]
    numbers = [
        "seed",
        *(
            name
            for name in ("steps", "learning_rate", "generation", "order", "overlap", "asked", "trained_seconds")
            if name in trials
        ),
        *(f"{name}{part}" for name in metrics for part in ("", "_low", "_high", "_n", "_unscored")),
    ]
    if wrong := [name for name in numbers if name not in trials or not pd.api.types.is_numeric_dtype(trials[name])]:
        raise _damaged(run, TRIALS, f"has no numbers in {', '.join(wrong[:3])}")
    try:
        points = [json.loads(point) for point in trials["point"]]
    except ValueError as error:
        raise _damaged(run, TRIALS, "has a point that is not JSON") from error
    if not all(isinstance(point, dict) for point in points):
        raise _damaged(run, TRIALS, "has a point that is not a JSON object")
    return with_sorted_points(trials)


def with_sorted_points(trials: pd.DataFrame) -> pd.DataFrame:
    """Returns the trials with the keys of their points in order, so that equal points are equal texts."""
    return trials.assign(point=[json.dumps(json.loads(point), sort_keys=True) for point in trials["point"]])


def _damaged(run: Path, name: str, why: str) -> UsageError:
    return UsageError(f"{run / name}: {why}; run the sweep again to rewrite it")
