"""Reads the files of a run folder, and refuses damaged ones with their name."""

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from safecomm.data.rows import current_name
from safecomm.errors import UsageError, printable
from safecomm.report.saved_sweep import SavedSweep
from safecomm.storage import input_files
from safecomm.storage.names import SWEEP, TRIALS

TEXTS = ("trial", "arm", "point", "split", "status", "evaluation")
"""The columns of `trials.parquet` that everything is read by."""

OTHER_TEXTS = ("adapter", "adapter_path", "finetune", "profile", "error", "log", "reason", "data")
"""Further columns of texts; a trial that failed lacks some."""

STAGES = ("adapter_path", "finetune", "profile")
"""Those of them that are read of every trial; they are empty where no trial got that far."""


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
    checked(folder, name, raw, what)
    return raw


def checked(folder: Path, name: str, raw: Any, what: Any) -> None:
    """Checks the content of a JSON file, for `read_as`."""
    try:
        TypeAdapter(what).validate_python(raw, strict=True)
    except (ValidationError, RecursionError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": "is nested too deeply"}
        key = ".".join(map(str, first["loc"])) or "the file"
        raise _damaged(folder, name, f"{printable(key)[:100]}: {first['msg']}") from error


def read_saved_sweep(run: Path) -> dict[str, Any]:
    """Reads `sweep.json`, with the task benchmarks under `evaluate.task` whenever it was written.

    Raises:
        UsageError: if it is missing or damaged.
    """
    found = read_json(run, SWEEP)
    if isinstance(found, dict) and isinstance(found.get("evaluate"), dict):
        found["evaluate"] = {current_name(key): value for key, value in found["evaluate"].items()}
    checked(run, SWEEP, found, SavedSweep)
    sweep: dict[str, Any] = found
    return sweep


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
    trials = trials.assign(**{name: "" for name in STAGES if name not in trials})
    if wrong := [name for name in TEXTS if not trials[name].map(lambda value: isinstance(value, str)).all()]:
        raise _damaged(run, TRIALS, f"has values that are no text in {', '.join(wrong)}")
    if wrong := [name for name in OTHER_TEXTS if name in trials and not trials[name].map(_is_text).all()]:
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


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def with_sorted_points(trials: pd.DataFrame) -> pd.DataFrame:
    """Returns the trials with the keys of their points in order, so that equal points are equal texts."""
    return trials.assign(point=[json.dumps(json.loads(point), sort_keys=True) for point in trials["point"]])


def _damaged(run: Path, name: str, why: str) -> UsageError:
    return UsageError(f"{run / name}: {why}; run the sweep again to rewrite it")
