"""Reads the JSON files of models and adapters."""

from pathlib import Path
from typing import Any

from safecomm.errors import ModelError
from safecomm.storage.input_files import read_json


def read_object(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        ModelError: if the file is missing or is not a JSON object.
    """
    try:
        value = read_json(path)
    except OSError as error:
        raise ModelError(f"{path}: can't be read: {error.strerror}") from error
    except ValueError as error:
        raise ModelError(f"{path}: {error}; download or create it again") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: is not a JSON object; download or create it again")
    return value


def size_in(config: dict[str, Any], key: str, default: int | None = None) -> int | None:
    """Returns a size that a configuration states: a whole number of at least 1, or the default if it has none.

    Raises:
        ModelError: if it is anything else.
    """
    value = config.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 1 << 40:
        raise ModelError(f"{key} is {value!r:.60}, but must be a positive number")
    return value
