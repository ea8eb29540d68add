"""A lock that processes on several machines can have, one at a time, wherever its marks lie.

Whoever has it made the mark with the highest number, which says who that is, and touches it now and then. To take over
a lock that nobody touches any more is to make the mark of the next number: of all who try, one can. The highest mark is
never removed, an empty one is free. This needs no flock, which a network file system may not heed and a bucket lacks.
"""

import errno
import getpass
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import psutil

from safecomm.errors import SafecommError, StorageError
from safecomm.storage.bucket import Bucket

BEAT = 10.0
"""Seconds between two touches."""
STALE = 60.0
"""Seconds without a touch after which a lock may be taken over."""
POLL = 2.0
"""Seconds between two looks at a lock that one waits for."""
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
SAME_START = 60.0
"""Seconds by which a process's start may be told differently later: clocks are set right while it runs."""


@dataclass(frozen=True)
class Owner:
    """The process that has a lock."""

    host: str
    """Name of the machine, and of its process numbers where containers have some of their own."""
    pid: int
    user: str
    started: float
    """When the process started, as seconds since 1970."""

    @classmethod
    def this(cls) -> "Owner":
        """Returns this process."""
        return cls(_host(), os.getpid(), _user(), psutil.Process().create_time())

    @property
    def is_dead(self) -> bool:
        """Whether it was a process of this machine and is gone; False where that can't be told from here."""
        if self.host != _host():
            return False
        try:
            process = psutil.Process(self.pid)
            is_another = abs(process.create_time() - self.started) > SAME_START
            return is_another or bool(process.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.started, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"process {self.pid} of {self.user} on {self.host.partition(' ')[0]}, started {since}"


class Marks(Protocol):
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


class FileMarks:
    """Marks as files `STEM.N`, also on a network file system."""

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


class ObjectMarks:
    """Marks as objects `NAME/N` of a bucket."""

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


class HeldError(Exception):
    """Somebody else has the lock."""

    def __init__(self, owner: Owner | None, silent: float):
        self.owner, self.silent = owner, max(0.0, silent)
        """Who, None where that can't be read, and seconds since the last sign."""
        super().__init__(f"{owner or 'somebody'} has the lock")


class Lock:
    """The lock of some marks. `beat` must be called every `BEAT` seconds while it is held."""

    def __init__(self, marks: Marks):
        """Takes the lock; `taken_over` says in words from whom, if from anybody.

        Raises:
            HeldError: where another has it, or won it meanwhile.
        """
        self._marks = marks
        self.is_lost = False
        newest = self._newest()
        self.taken_over = self._check_free(newest)
        self._number, self._text = newest + 1, json.dumps(asdict(Owner.this()))
        if not marks.create(self._number, self._text):
            raise self._held(self._number, 0.0)
        if (newest := self._newest()) != self._number:  # two others came and went while we looked
            marks.remove(self._number)
            raise self._held(newest, 0.0)
        for old in marks.numbers():
            if old < self._number:
                marks.remove(old)

    def beat(self) -> None:
        """Shows that its holder goes on, or notices that another has taken the lock."""
        try:
            self.is_lost = self.is_lost or self._newest() != self._number
            if not self.is_lost:
                self._marks.touch(self._number, self._text)
        except FileNotFoundError:
            self.is_lost = True
        except StorageError:  # a bucket that does not answer now may do so at the next beat
            return

    def release(self) -> None:
        """Frees the lock, unless another has it."""
        if not self.is_lost:
            self._marks.empty(self._number)

    @contextmanager
    def held(self, when_lost: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Beats in a thread of its own, and frees the lock at last."""
        is_over = threading.Event()

        def keep() -> None:
            while not is_over.wait(BEAT):
                self.beat()
                if self.is_lost:
                    when_lost()
                    return

        thread = threading.Thread(target=keep, name="lock", daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()
            self.release()

    def _newest(self) -> int:
        return max(self._marks.numbers(), default=0)

    def _check_free(self, number: int) -> str:
        """Returns what to say of a lock that is taken over, "" where none is.

        Raises:
            HeldError: where another has the lock.
        """
        found = self._marks.read(number) if number else None
        if not found or not found[0]:
            return ""
        owner, silent = _owner(found[0]), self._marks.now() - found[1]
        is_dead = owner is not None and owner.is_dead
        if not is_dead and silent <= STALE:
            raise HeldError(owner, silent)
        return f"{owner or 'a run'}, which {'is gone' if is_dead else f'gave no sign for {silent:.0f} s'}"

    def _held(self, number: int, silent: float) -> HeldError:
        found = self._marks.read(number)
        return HeldError(_owner(found[0]) if found else None, silent)


@contextmanager
def waiting_lock(marks: Marks) -> Iterator[None]:
    """Holds a lock, after waiting for whoever has it."""
    while True:
        try:
            lock = Lock(marks)
            break
        except HeldError:
            time.sleep(POLL)
    with lock.held():
        yield


def _owner(text: str) -> Owner | None:
    try:
        record = json.loads(text)
        return Owner(**{field.name: record[field.name] for field in fields(Owner)})
    except (ValueError, KeyError, TypeError):
        return None


def _host() -> str:
    numbering = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()} {os.readlink(numbering)}" if numbering.exists() else socket.gethostname()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())
