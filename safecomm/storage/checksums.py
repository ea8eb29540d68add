"""What a finished folder's files looked like when they were written, and whether they still do."""

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ALWAYS_HASHED = 64 << 20
"""Files up to this many bytes are read before their first use in a process, in some 0.1 s."""


def file_digest(path: Path) -> str:
    """Returns 16 hex digits that stand for a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def checksums(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns size, time of change (ns) and digest of every file under a folder, by its path there."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        state = path.stat()
        found[path.relative_to(folder).as_posix()] = {
            "size": state.st_size,
            "changed": state.st_mtime_ns,
            "digest": file_digest(path),
        }
    return found


def damage(folder: Path, recorded: Mapping[str, Mapping[str, Any]]) -> str:
    """Tells what is wrong with a folder's files, or "" where nothing is.

    Sizes are compared each time. A file's bytes are compared once in a process, and again when the file changes: those
    of files up to 64 MiB, and those of larger ones whose time of change is not the recorded one. So whatever is cut
    off, written over or gone is found; what is not, is a disk that alters a large file beneath the file system.

    Args:
        folder: the folder.
        recorded: what `checksums` returned for it.

    Raises:
        OSError: where a file can't be read.
    """
    for name, was in recorded.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        state = path.stat()
        if state.st_size != was["size"]:
            return f"{name} has {state.st_size} bytes, not {was['size']}"
        is_suspect = state.st_size <= ALWAYS_HASHED or state.st_mtime_ns != was["changed"]
        if is_suspect and _known_digest(path, state.st_size, state.st_mtime_ns) != was["digest"]:
            return f"{name} was altered"
    return ""


@functools.cache
def _known_digest(path: Path, size: int, changed: int) -> str:
    """Returns a file's digest, computed anew only where its size or time of change is another."""
    return file_digest(path)
