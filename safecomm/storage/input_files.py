"""Reads files that users name: regular files of bounded size, UTF-8 text and JSON.

Whatever a file holds, only `OSError` and `ValueError` leave these functions, each with a reason in one line; the
callers add the file and how to fix it.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any

MAX_BYTES = 4 << 30
"""The largest data file that is read, in bytes; rows take several times as much memory."""
MAX_TEXT_BYTES = 256 << 20
"""The largest JSON or text file of settings that is read, in bytes."""


def read_bytes(path: Path, most: int = MAX_BYTES) -> bytes:
    """Reads a regular file.

    Args:
        path: the file. A FIFO would block and a device may never end, so only regular files are read.
        most: the largest size, in bytes.

    Raises:
        OSError: if it can't be read, is not a regular file, or is too large; `strerror` states the reason.
    """
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise OSError(0, "it is a folder", str(path))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(0, "it is not a regular file", str(path))
        if found.st_size > most:
            raise OSError(0, f"it has {found.st_size:,} bytes, more than the {most:,} that are read", str(path))
        with path.open("rb") as file:
            content = file.read(most)
    except ValueError as error:  # a NUL in the path
        raise OSError(0, str(error), str(path)) from error
    return content


def read_text(path: Path, most: int = MAX_TEXT_BYTES) -> str:
    """Reads a UTF-8 text file; a byte order mark is removed.

    Raises:
        OSError: see `read_bytes`.
        ValueError: if it is not UTF-8.
    """
    return decode(read_bytes(path, most))


def decode(content: bytes) -> str:
    """Decodes UTF-8 text; a byte order mark is removed.

    Raises:
        ValueError: if it is not UTF-8.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 text (byte {error.start})") from error


def parse_json(text: str) -> Any:
    """Parses JSON.

    Raises:
        ValueError: if it is not valid, nested too deeply, or has a number with thousands of digits or a surrogate
            without its pair, which no file can store.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    except json.JSONDecodeError:
        raise
    except ValueError as error:  # Python's limit for the digits of integers
        raise ValueError("has a number with thousands of digits") from error
    if "\\ud" in text or "\\uD" in text:
        _refuse_surrogates(value)
    return value


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        OSError: see `read_bytes`.
        ValueError: if it is not UTF-8 or not valid JSON (see `parse_json`); the message has no path.
    """
    try:
        return parse_json(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"is not valid JSON (line {error.lineno}: {error.msg})") from error


def whole_number(text: str) -> int | None:
    """Returns the number that decimal digits denote, or None; `str.isdigit` also accepts `²` and any length."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def is_regular(path: Path) -> bool:
    """Returns whether a path names a regular file; False also for paths that no file system has."""
    try:
        return os.path.isfile(path)
    except ValueError:  # a NUL
        return False


def _refuse_surrogates(value: Any) -> None:
    remaining = [value]
    while remaining:
        one = remaining.pop()
        if isinstance(one, dict):
            remaining += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            remaining += one
        elif isinstance(one, str) and not one.isascii() and any("\ud800" <= character <= "\udfff" for character in one):
            raise ValueError("has a surrogate without its pair, e.g. \\ud800, which is no character")
