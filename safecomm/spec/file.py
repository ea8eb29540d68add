"""Reads a sweep from YAML or JSON, with `--set` overrides, and words its mistakes."""

import difflib
import logging
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from safecomm.data.rows import FORMER_TASK, current_name
from safecomm.defenses.space import PER_TYPE, SPACES
from safecomm.errors import SpecError
from safecomm.spec.secrets import secret_in
from safecomm.spec.sweep import Sweep

logger = logging.getLogger(__name__)
FORMER_KEY = re.compile(rf"^evaluate\.{FORMER_TASK}(?=[.=])")


def read_sweep(path: Path, overrides: list[str] | None = None) -> Sweep:
    """Reads a sweep file.

    Args:
        path: YAML, or a run's `sweep.json`.
        overrides: `dotted.key=value` settings that replace or add to the file's; values are YAML.

    Raises:
        SpecError: with all the mistakes found, a line each.
    """
    try:
        text = path.read_text(encoding="utf-8")
        _refuse_secrets(path, text, overrides or [])
        raw = yaml.safe_load(text)
    except OSError as error:
        raise SpecError(str(path), [f"can't be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise SpecError(str(path), ["is not a text file"]) from error
    except yaml.YAMLError as error:
        raise SpecError(str(path), [f"is not valid YAML: {' '.join(str(error).split())}"]) from error
    if not isinstance(raw, dict):
        raise SpecError(str(path), ["holds no sweep; start from sweeps/lab.yaml"])
    overrides = _with_current_names(path, raw, overrides or [])
    problems = [problem for text in overrides if (problem := _override(raw, text))]
    try:
        sweep = Sweep.model_validate(raw)
    except ValidationError as error:
        problems += [_wording(found) for found in error.errors(include_url=False)]
    if problems:
        raise SpecError(str(path), list(dict.fromkeys(problems)))
    return sweep


def _refuse_secrets(path: Path, text: str, overrides: list[str]) -> None:
    """Refuses a sweep with a secret in it, before anything of it is shown."""
    places = {"": text} | {f"--set {override.partition('=')[0]}": override for override in overrides}
    found = {place: name for place, content in places.items() if (name := secret_in(content))}
    if found:
        where = [f"{place or 'the file'} holds a secret ({name})" for place, name in found.items()]
        mend = "take it out: a sweep is written to files and to W&B, and secrets are read from the environment"
        raise SpecError(str(path), [f"{one}; {mend}" for one in where])


def _with_current_names(path: Path, raw: dict[str, Any], overrides: list[str]) -> list[str]:
    """Renames `evaluate.telecom`, as sweeps once called `evaluate.task`, and says so in one line.

    Returns:
        The overrides, renamed likewise.
    """
    renamed = [FORMER_KEY.sub("evaluate.task", text) for text in overrides]
    evaluate = raw.get("evaluate")
    is_former = isinstance(evaluate, dict) and FORMER_TASK in evaluate and "task" not in evaluate
    if is_former:
        raw["evaluate"] = {current_name(key): value for key, value in raw["evaluate"].items()}
    if is_former or renamed != overrides:
        logger.warning("%s: evaluate.%s is called evaluate.task now; the old name still works", path, FORMER_TASK)
    return renamed


def _override(raw: dict[str, Any], text: str) -> str | None:
    """Applies one `key=value`; returns what is wrong with it, if anything."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        return f"--set {text}: write it as KEY=VALUE, e.g. --set search.trials=8"
    *parents, last = key.split(".")
    node: Any = raw
    for name in parents:
        step = int(name) if isinstance(node, list) and name.isdigit() and int(name) < len(node) else name
        if isinstance(node, list) and isinstance(step, str):
            return f"--set {text}: {name} is no position in the list before it"
        if isinstance(node, dict) and not isinstance(node.get(step), dict | list):
            node[step] = {}
        if isinstance(node, list) and isinstance(step, int) and isinstance(node[step], str):
            node[step] = {"name": node[step]}  # what a bare name in a list is short for
        node = node[step]
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        return f"--set {text}: the value is not valid YAML"
    if isinstance(node, list):
        if not last.isdigit() or int(last) >= len(node):
            return f"--set {text}: {last} is no position in the list before it"
        node[int(last)] = parsed
    else:
        node[last] = parsed
    return None


def _wording(found: Any) -> str:
    """Turns one pydantic error into `dotted.key: what is wrong`."""
    place = list(found["loc"])
    shown: list[str] = []
    for part in place:
        if part in ("value", PER_TYPE) or (shown and part == shown[-1] and part in SPACES):
            continue
        shown.append(str(part))
    key = ".".join(shown) or "sweep"
    if found["type"] == "extra_forbidden":
        near = difflib.get_close_matches(shown[-1], _fields(place[:-1]), n=1)
        return f"{key}: there is no such key{f'; did you mean {near[0]}?' if near else ''}"
    if found["type"] == "missing":
        return f"{key}: is missing"
    message = str(found["msg"]).removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    value = found["input"]
    got = f" (got {value!r})" if isinstance(value, str | int | float | bool) and found["type"] != "value_error" else ""
    return f"{key}: {message}{got}"


def _fields(place: list[Any]) -> list[str]:
    """Returns the keys that the section at a place has."""
    section: Any = Sweep
    for part in place:
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            break
        field = section.model_fields.get(str(part))
        section = _section(field.annotation) if field else None
    return list(section.model_fields) if isinstance(section, type) and issubclass(section, BaseModel) else []


def _section(annotation: Any) -> Any:
    """Returns the pydantic model inside an annotation such as `X | None`, `list[X]` or `dict[str, list[X]]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        if found := _section(inner):
            return found
    return None
