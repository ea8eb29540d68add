"""Checksums of a finished folder's files, and detection of damage."""

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ALWAYS_HASHED = 64 << 20
"""Files up to this size are hashed before their first use in a process; that takes about 0.1 s."""


def file_digest(path: Path) -> str:
    """Returns the first 16 hex digits of a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def content_digest(path: Path) -> str:
    """Returns a hash of a file, or of all files in a folder; an empty string if there is nothing."""
    if path.is_file():
        state = path.stat()
        return _known_digest(path, state.st_size, state.st_mtime_ns)
    files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else []
    contents = [f"{one.relative_to(path).as_posix()} {content_digest(one)}" for one in files]
    return hashlib.sha256("\n".join(contents).encode()).hexdigest()[:16] if files else ""


def checksums(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns relative path -> size, modification time (ns) and digest of every file under a folder."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        state = path.stat()
        found[path.relative_to(folder).as_posix()] = {
            "size": state.st_size,
            "changed": state.st_mtime_ns,
            "digest": file_digest(path),
        }
    return found


def damage(folder: Path, recorded: Mapping[str, Mapping[str, Any]], is_thorough: bool = False) -> str:
    """Returns a description of the first damaged file, or "" if all files are intact.

    Sizes are compared on every call. Contents are hashed once per process and again after a change: always for files
    up to 64 MiB, for larger files only if the modification time differs from the recorded one. This detects truncated,
    overwritten and missing files. It misses corruption of a large file below the file system, unless it is thorough.

    Args:
        folder: the folder.
        recorded: the result of `checksums` for it.
        is_thorough: whether to hash large files in any case.

    Raises:
        OSError: if a file can't be read.
    """
    for name, was in recorded.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        state = path.stat()
        if state.st_size != was["size"]:
            return f"{name} has {state.st_size} bytes, not {was['size']}"
        is_suspect = is_thorough or state.st_size <= ALWAYS_HASHED or state.st_mtime_ns != was["changed"]
        if is_suspect and _known_digest(path, state.st_size, state.st_mtime_ns) != was["digest"]:
            return f"{name} was altered"
    return ""


@functools.cache
def _known_digest(path: Path, size: int, changed: int) -> str:
    """Returns a file's digest, cached by size and modification time."""
    return file_digest(path)
