"""The marks of locks: numbered, made by one of all who try, as files or as objects of a bucket."""

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
    """Where a lock's numbered marks lie. Times are those of the clock there, in seconds."""

    def numbers(self) -> list[int]:
        """Returns the numbers of all marks."""

    def create(self, number: int, text: str) -> bool:
        """Makes a mark, whole and at once, unless there is one; of all who try, one gets True."""

    def read(self, number: int) -> tuple[str, float] | None:
        """Returns a mark's text and when it was touched; None where it is gone."""

    def now(self) -> float:
        """Returns the time there."""

    def touch(self, number: int, text: str) -> None:
        """Gives a mark, with the text that it has, the present time."""

    def empty(self, number: int) -> None:
        """Leaves a mark without a text."""

    def remove(self, number: int) -> None:
        """Removes a mark, if it is there."""


class FileLeaseRecords:
    """LeaseRecords as files `STEM.N`, also on a network file system."""

    def __init__(self, stem: Path):
        self._stem = stem

    def numbers(self) -> list[int]:
        """Returns the numbers of all files."""
        found = self._stem.parent.glob(f"{self._stem.name}.*")
        return [int(path.suffix[1:]) for path in found if path.suffix[1:].isdigit()]

    def create(self, number: int, text: str) -> bool:
        """Links the file, of which all who try at once can do but one."""
        with self._written(text) as mine:
            try:
                os.link(mine, self._path(number))
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                raise SafecommError(
                    f"{self._stem.parent}: its file system has no hard links, which a run's lock needs; set storage to "
                    "another"
                ) from error
        return True

    def read(self, number: int) -> tuple[str, float] | None:
        """Reads the file."""
        try:
            with self._path(number).open(encoding="utf-8") as file:  # asks a network file system for the present state
                return file.read(), os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            return None

    def now(self) -> float:
        """Returns the time of a new file."""
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
    """LeaseRecords as objects `NAME/N` of a bucket."""

    def __init__(self, bucket: Bucket, name: str):
        self._bucket, self._name = bucket, name

    def numbers(self) -> list[int]:
        """Returns the numbers of all objects."""
        return [int(name) for name in self._bucket.files(self._name) if name.isdigit()]

    def create(self, number: int, text: str) -> bool:
        """Writes the object on the condition that there is none."""
        return self._bucket.create(f"{self._name}/{number}", text.encode())

    def read(self, number: int) -> tuple[str, float] | None:
        """Reads the object."""
        found = self._bucket.read(f"{self._name}/{number}")
        return (found[0].decode(errors="replace"), found[1]) if found else None

    def now(self) -> float:
        """Returns the time of a new object."""
        mine = f"{self._name}/now-{uuid.uuid4().hex}"
        self._bucket.write(mine, b"")
        found = self._bucket.read(mine)
        self._bucket.remove(mine)
        return found[1] if found else time.time()

    def touch(self, number: int, text: str) -> None:
        """Writes the object anew."""
        self._bucket.write(f"{self._name}/{number}", text.encode())

    def empty(self, number: int) -> None:
        """Writes the object without a text."""
        self._bucket.write(f"{self._name}/{number}", b"")

    def remove(self, number: int) -> None:
        """Removes the object."""
        self._bucket.remove(f"{self._name}/{number}")
