"""Lease records of a lock: numbered entries with exclusive creation, stored as files or as bucket objects."""

import errno
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from safecomm.errors import SafecommError
from safecomm.storage.bucket import Bucket

NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class LeaseRecords(Protocol):
    """Storage for a lock's numbered lease records. Times are in seconds, by the storage's clock."""

    def numbers(self) -> list[int]:
        """Returns the numbers of all records."""

    def create(self, number: int, text: str) -> bool:
        """Creates a record atomically unless it exists. Of several concurrent callers, exactly one gets True."""

    def read(self, number: int) -> tuple[str, float] | None:
        """Returns a record's text and modification time, or None if it does not exist."""

    def now(self) -> float:
        """Returns the current time by the storage's clock."""

    def touch(self, number: int, text: str) -> None:
        """Sets a record's modification time to now; `text` is its unchanged content."""

    def empty(self, number: int) -> None:
        """Clears a record's text."""

    def remove(self, number: int) -> None:
        """Removes a record if it exists."""


class FileLeaseRecords:
    """Lease records as files `STEM.N`; safe on network file systems."""

    def __init__(self, stem: Path):
        self._stem = stem

    def numbers(self) -> list[int]:
        """Returns the numbers of all files."""
        found = self._stem.parent.glob(f"{self._stem.name}.*")
        return [int(path.suffix[1:]) for path in found if path.suffix[1:].isdigit()]

    def create(self, number: int, text: str) -> bool:
        """Hard-links the file into place; the link succeeds for one caller only."""
        with self._written(text) as mine:
            try:
                os.link(mine, self._path(number))
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                raise SafecommError(
                    f"{self._stem.parent}: the file system does not support hard links, which the run lock needs; set "
                    "storage to a folder on another file system"
                ) from error
        return True

    def read(self, number: int) -> tuple[str, float] | None:
        """Reads the file."""
        try:
            with self._path(number).open(encoding="utf-8") as file:  # opening revalidates NFS's cached attributes
                return file.read(), os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            return None

    def now(self) -> float:
        """Returns the modification time of a new file."""
        with self._written("") as mine:
            return mine.stat().st_mtime

    def touch(self, number: int, text: str) -> None:
        """Touches the file."""
        os.utime(self._path(number))

    def empty(self, number: int) -> None:
        """Truncates the file."""
        if self._path(number).exists():
            os.truncate(self._path(number), 0)

    def remove(self, number: int) -> None:
        """Removes the file."""
        self._path(number).unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self._stem.with_name(f"{self._stem.name}.{number}")

    @contextmanager
    def _written(self, text: str) -> Iterator[Path]:
        mine = self._stem.with_name(f"{self._stem.name}-{uuid.uuid4().hex}")
        try:
            with mine.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            yield mine
        finally:
            mine.unlink(missing_ok=True)


class ObjectLeaseRecords:
    """Lease records as bucket objects `NAME/N`."""

    def __init__(self, bucket: Bucket, name: str):
        self._bucket, self._name = bucket, name

    def numbers(self) -> list[int]:
        """Returns the numbers of all objects."""
        return [int(name) for name in self._bucket.files(self._name) if name.isdigit()]

    def create(self, number: int, text: str) -> bool:
        """Writes the object if it does not exist."""
        return self._bucket.create(f"{self._name}/{number}", text.encode())

    def read(self, number: int) -> tuple[str, float] | None:
        """Reads the object."""
        found = self._bucket.read(f"{self._name}/{number}")
        return (found[0].decode(errors="replace"), found[1]) if found else None

    def now(self) -> float:
        """Returns the modification time of a new object."""
        mine = f"{self._name}/now-{uuid.uuid4().hex}"
        self._bucket.write(mine, b"")
        found = self._bucket.read(mine)
        self._bucket.remove(mine)
        return found[1] if found else time.time()

    def touch(self, number: int, text: str) -> None:
        """Rewrites the object."""
        self._bucket.write(f"{self._name}/{number}", text.encode())

    def empty(self, number: int) -> None:
        """Overwrites the object with empty content."""
        self._bucket.write(f"{self._name}/{number}", b"")

    def remove(self, number: int) -> None:
        """Removes the object."""
        self._bucket.remove(f"{self._name}/{number}")
