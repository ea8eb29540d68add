"""A manifest of a folder: the SHA-256 and the size of every file in it.

It shows whether the folder is still what was written. It is not signed: anyone who can change a file can write another
manifest, so keep the manifest's own SHA-256 in another place.
"""

import hashlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from safecomm.errors import DataError, UsageError, printable
from safecomm.storage.input_files import is_regular, read_json
from safecomm.storage.names import MANIFEST
from safecomm.storage.store import write_json

OF_THE_HUB = {".gitattributes", ".cache", ".git"}
"""What the Hub and its client add to a folder that is uploaded and downloaded again."""
IRREGULAR = "is a link or a special file"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class FileRecord(_Strict):
    """What is recorded of a file."""

    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Manifest(_Strict):
    """The content of `manifest.json`."""

    version: Literal[1] = 1
    made_with: str
    """The program and its version."""
    created: str
    """When, in UTC."""
    files: dict[str, FileRecord]
    """Path relative to the folder -> record; the manifest itself is not among them."""

    @model_validator(mode="after")
    def names_stay_inside(self) -> Self:
        """Refuses names that lead out of the folder."""
        for name in self.files:
            if name.startswith("/") or ".." in name.split("/") or "\0" in name:
                raise ValueError(f"{printable(name)[:100]!r} is not a path in the folder")
        return self

    @property
    def size(self) -> int:
        """The bytes of all files together."""
        return sum(one.size for one in self.files.values())


def write_manifest(folder: Path, made_with: str) -> Manifest:
    """Writes the manifest of all files in a folder; it is the last file to be written there.

    Raises:
        UsageError: if the folder has a link or a special file, whose content may change elsewhere.
    """
    names = _names(folder)
    for name in names:
        if not _is_regular(folder / name):
            raise UsageError(f"{folder / name}: {IRREGULAR}; replace it with a copy of the file")
    files = {name: _record(folder / name) for name in names}
    found = Manifest(made_with=made_with, created=datetime.now(UTC).isoformat(timespec="seconds"), files=files)
    write_json(folder / MANIFEST, found.model_dump())
    return found


def read_manifest(folder: Path) -> Manifest:
    """Reads a folder's manifest.

    Raises:
        UsageError: if there is no such folder, or it has no manifest.
        DataError: if the manifest is damaged.
    """
    path = folder / MANIFEST
    if not is_regular(path):
        what = f"it has no {MANIFEST}" if os.path.isdir(folder) else "there is no such folder"
        raise UsageError(f"{folder}: {what}; name a folder that `safecomm export --evidence` wrote")
    try:
        return Manifest.model_validate(read_json(path))
    except (OSError, ValidationError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: is damaged: {_reason(error)}; get an intact copy of the folder") from error


def differences(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Yields a line for every file that is missing, altered, or not in the manifest, and for every link."""
    present = set(_names(folder))
    irregular = {name for name in (MANIFEST, *present) if not _is_regular(folder / name)}
    for name in sorted(irregular):
        yield f"{name}: {IRREGULAR}"
    for name, recorded in sorted(manifest.files.items()):
        if name not in present:
            yield f"{name}: is missing"
        elif name not in irregular and (found := _record(folder / name)) != recorded:
            sizes = f"{found.size:,} bytes instead of {recorded.size:,}"
            yield f"{name}: was altered ({'same size' if found.size == recorded.size else sizes})"
    for name in sorted(present - manifest.files.keys() - irregular):
        yield f"{name}: is not in the manifest"


def sha256_of(path: Path) -> str:
    """Returns a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _names(folder: Path) -> list[str]:
    """Returns the paths of the folder's files; a link counts as a file, because it can change with its target."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(name.as_posix() for name in found if name.parts[0] not in OF_THE_HUB and name.as_posix() != MANIFEST)


def _is_regular(path: Path) -> bool:
    """Whether it can be read: reading neither follows a link out of the folder nor waits for a pipe."""
    return path.is_file() and not path.is_symlink()


def _record(path: Path) -> FileRecord:
    return FileRecord(size=path.stat().st_size, sha256=sha256_of(path))


def _reason(error: Exception) -> str:
    """Returns what is wrong, in one line."""
    if isinstance(error, OSError):
        return str(error.strerror)
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        place = " ".join(printable(".".join(map(str, first["loc"]))).split())[:100]
        return f"{place}: {first['msg']}" if place else first["msg"]
    return str(error) or "is nested too deeply"
