"""Reads a sweep from YAML or JSON, applies `--set` overrides, and reports mistakes."""

import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from safecomm.data.rows import FORMER_TASK, current_name
from safecomm.defenses.space import PER_TYPE, SPACES
from safecomm.errors import SpecError, suggestion
from safecomm.spec.secrets import secret_in
from safecomm.spec.sweep import Sweep
from safecomm.storage.input_files import read_text, whole_number

logger = logging.getLogger(__name__)
Settings = TypeVar("Settings", bound=BaseModel)
INSTALLED = Path(sys.prefix) / "share" / "safecomm" / "sweeps"
"""The bundled sweeps, if safecomm was installed from a wheel."""
MAX_SWEEP_BYTES = 4 << 20
MAX_DEPTH = 50
"""The most parts of a key of `--set`."""
MAX_VALUES = 100_000
"""The most values in a file, with those that aliases repeat."""
FORMER_KEY = re.compile(rf"^evaluate\.{FORMER_TASK}(?=[.=])")


def read_sweep(path: Path, overrides: list[str] | None = None) -> Sweep:
    """Reads a sweep file.

    Args:
        path: YAML, or a run's `sweep.json`.
        overrides: `dotted.key=value` settings that replace or extend the file's; values are YAML.

    Raises:
        SpecError: if the sweep is invalid; lists all mistakes, one per line.
    """
    raw = _read_yaml(path, "sweeps/lab.yaml", overrides or [])
    overrides = _with_current_names(path, raw, overrides or [])
    problems = [problem for text in overrides if (problem := _override(raw, text))]
    _refuse_secrets(path, "\n".join(_texts(raw)), [])  # YAML's escapes are read now
    problems += [f"{key}: the number is too large" for key in _too_large(raw)]
    return _validated(path, raw, Sweep, problems)


def read_settings(path: Path, model: type[Settings], example: str) -> Settings:
    """Reads another YAML file of settings.

    Args:
        path: the file.
        model: its pydantic model.
        example: names where to find an example, for the error messages.

    Raises:
        SpecError: if the file is invalid; lists all mistakes, one per line.
    """
    return _validated(path, _read_yaml(path, example, []), model, [])


def _read_yaml(path: Path, example: str, overrides: list[str]) -> dict[str, Any]:
    try:
        text = read_text(path, MAX_SWEEP_BYTES)
    except OSError as error:
        bundled = INSTALLED / path.name
        hint = f"; the bundled sweep of that name is {bundled}" if bundled.is_file() else ""
        raise SpecError(str(path), [f"can't be read: {error.strerror}{hint}"]) from error
    except ValueError as error:
        raise SpecError(str(path), [f"{error}; start from {example}"]) from error
    _refuse_secrets(path, text, overrides)
    try:
        raw = parse_yaml(text)
    except ValueError as error:
        raise SpecError(str(path), [f"is not valid YAML: {error}"]) from error
    if not isinstance(raw, dict):
        raise SpecError(str(path), [f"has no settings; start from {example}"])
    return raw


def _validated(path: Path, raw: dict[str, Any], model: type[Settings], problems: list[str]) -> Settings:
    try:
        settings = model.model_validate(raw)
    except ValidationError as error:
        problems = problems + [_message(problem, model) for problem in error.errors(include_url=False)]
    if problems:
        raise SpecError(str(path), list(dict.fromkeys(problems)))
    return settings


def parse_yaml(text: str) -> Any:
    """Parses YAML that a user wrote, in a file or on the command line.

    Raises:
        ValueError: if it is not valid, in one line: wrong syntax, a value that is not of its type, or too deep.
    """
    try:
        found = yaml.load(text, _UniqueKeys)
        _refuse_too_many(found)
        return found
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except LookupError as error:
        raise ValueError("a value does not fit its tag, e.g. !!bool or !!int") from error
    except (yaml.YAMLError, ValueError, TypeError, OverflowError, AttributeError) as error:  # e.g. 2024-13-45
        raise ValueError(" ".join(str(error).split())[:300]) from error


def _refuse_too_many(value: Any) -> None:
    """Raises a ValueError if aliases make a short file a value of any size, or one that contains itself."""
    remaining = [value]
    for _ in range(MAX_VALUES):
        if not remaining:
            return
        one = remaining.pop()
        if isinstance(one, dict):
            remaining += one.values()
        elif isinstance(one, list | tuple | set):
            remaining += one
    raise ValueError(f"it has more than {MAX_VALUES:,} values")


def _too_large(value: Any, key: str = "") -> Iterator[str]:
    """Yields the dotted keys of whole numbers that don't fit into 64 bits."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        yield from _too_large(one, f"{key}.{name}".lstrip("."))
    if isinstance(value, int) and abs(value) >= 1 << 63:
        yield key


def _texts(value: Any) -> Iterator[str]:
    """Yields all texts in a value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from (*_texts(key), *_texts(inner))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, str):
        yield value


class _UniqueKeys(yaml.SafeLoader):
    """YAML's safe loader, which also refuses a key that is given twice; YAML itself takes the last one silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Builds a mapping.

        Raises:
            yaml.constructor.ConstructorError: if a key appears twice.
        """
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _refuse_secrets(path: Path, text: str, overrides: list[str]) -> None:
    """Rejects a sweep that contains a secret, before any of it is printed."""
    sources = {"the file": text} | {f"--set {override.partition('=')[0]}": override for override in overrides}
    secrets = {source: name for source, content in sources.items() if (name := secret_in(content))}
    if secrets:
        fix = "remove it and set the environment variable instead, because sweeps are written to files and to W&B"
        raise SpecError(str(path), [f"{source} contains a secret ({name}); {fix}" for source, name in secrets.items()])


def _with_current_names(path: Path, raw: dict[str, Any], overrides: list[str]) -> list[str]:
    """Renames `evaluate.telecom`, the former name of `evaluate.task`, with a warning.

    Returns:
        The overrides with the current name.
    """
    renamed = [FORMER_KEY.sub("evaluate.task", text) for text in overrides]
    evaluate = raw.get("evaluate")
    is_former = isinstance(evaluate, dict) and FORMER_TASK in evaluate and "task" not in evaluate
    if is_former:
        raw["evaluate"] = {current_name(key): value for key, value in raw["evaluate"].items()}
    if is_former or renamed != overrides:
        logger.warning("%s: evaluate.%s is now called evaluate.task; the old name still works", path, FORMER_TASK)
    return renamed


def _override(raw: dict[str, Any], text: str) -> str | None:
    """Applies one `key=value`; returns an error message, or None on success."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        return f"--set {text}: write it as KEY=VALUE, e.g. --set search.trials=8"
    *parents, last = key.split(".")
    if len(parents) >= MAX_DEPTH:
        return f"--set {text:.100}: the key has more than {MAX_DEPTH} parts"
    node: Any = raw
    for name in parents:
        step = _index(name, node) if isinstance(node, list) else name
        if step is None:
            return f"--set {text}: {name} is not an index of the list; use 0 to {len(node) - 1}"
        if isinstance(node, dict) and not isinstance(node.get(step), dict | list):
            node[step] = {}
        if isinstance(node, list) and isinstance(step, int) and isinstance(node[step], str):
            node[step] = {"name": node[step]}  # a bare name is short for this
        node = node[step]
        if not isinstance(node, dict | list):
            return f"--set {text}: {name} is {node!r} and has no keys; set it as a whole"
    try:
        parsed = parse_yaml(value)
    except ValueError:
        return f"--set {text:.100}: the value is not valid YAML; quote it"
    if isinstance(node, list):
        if (index := _index(last, node)) is None:
            return f"--set {text}: {last} is not an index of the list; use 0 to {len(node) - 1}"
        node[index] = parsed
    else:
        node[last] = parsed
    return None


def _index(text: str, items: list[Any]) -> int | None:
    index = whole_number(text)
    return index if index is not None and index < len(items) else None


def _message(problem: Any, model: type[BaseModel]) -> str:
    """Formats a pydantic error as `dotted.key: what is wrong`."""
    location = list(problem["loc"])
    shown: list[str] = []
    for part in location:
        if part in ("value", PER_TYPE) or (shown and part == shown[-1] and part in SPACES):
            continue
        shown.append(str(part))
    key = ".".join(shown) or str(location[-1] if location else "file")
    if problem["type"] == "extra_forbidden":
        return f"{key}: there is no such key{suggestion(location[-1], _fields(location[:-1], model))}"
    if problem["type"] == "missing":
        return f"{key}: is missing; add it"
    message = str(problem["msg"]).removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    value = problem["input"]
    show_value = isinstance(value, str | int | float | bool) and problem["type"] != "value_error"
    return f"{key}: {message}{f' (got {value!r})' if show_value else ''}"


def _fields(location: list[Any], model: type[BaseModel]) -> list[str]:
    """Returns the keys of the section at a location."""
    section: Any = model
    for part in location:
        if isinstance(part, int):
            continue  # an index of a list, whose items have the same keys
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
