"""One run at a time in a run folder, also where the folder is on a shared file system and the runs on several machines.

Whoever runs has the lock file `.lock.N` with the highest N, which says who that is; a thread touches it now and then.
To take over a lock that nobody touches any more is to link `.lock.N+1`: of all who try, the file system lets one. The
highest file is never removed, an empty one is free. This needs no flock, which a network file system may not heed.
"""

import errno
import getpass
import json
import os
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

import psutil

from safecomm.errors import SafecommError, StoppedError
from safecomm.store import disk_full_told

BEAT = 10.0
"""Seconds between two touches."""
STALE = 60.0
"""Seconds without a touch after which a lock may be taken over."""
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


class RunLock:
    """The lock of a run folder. `beat` must be called every `BEAT` seconds while it is held."""

    def __init__(self, folder: Path, say: Callable[[str], None]):
        """Takes the lock.

        Args:
            folder: the run folder.
            say: told in a line when a lock is taken over.

        Raises:
            SafecommError: where another run has it, or won it meanwhile.
        """
        self._folder = folder
        self.is_lost = False
        with disk_full_told(folder), self._written() as mine:
            newest = _newest(folder)
            taken_over = self._check_free(newest, mine.stat().st_mtime)
            self.path = folder / f".lock.{_number(newest) + 1}"
            try:
                os.link(mine, self.path)
            except FileExistsError:
                self._refuse(self.path, 0.0)
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                raise SafecommError(
                    f"{folder}: its file system has no hard links, which a run's lock needs; set storage to another"
                ) from error
        if _newest(folder) != self.path:  # two others came and went while we looked
            self.path.unlink()
            self._refuse(_newest(folder), 0.0)
        for old in _lock_files(folder):
            if _number(old) < _number(self.path):
                old.unlink(missing_ok=True)
        if taken_over:
            say(taken_over)

    def beat(self) -> None:
        """Shows that this run goes on, or notices that another has taken the lock."""
        try:
            self.is_lost = self.is_lost or _newest(self._folder) != self.path
            if not self.is_lost:
                os.utime(self.path)
        except FileNotFoundError:
            self.is_lost = True

    def release(self) -> None:
        """Frees the lock, unless another has it."""
        if not self.is_lost and self.path.exists():
            os.truncate(self.path, 0)

    @contextmanager
    def _written(self) -> Iterator[Path]:
        """Gives a file that says who we are, whose time of change is the file system's own now."""
        mine = self._folder / f".lock-{uuid.uuid4().hex}"
        try:
            with mine.open("w", encoding="utf-8") as file:
                json.dump(asdict(Owner.this()), file)
                file.flush()
                os.fsync(file.fileno())
            yield mine
        finally:
            mine.unlink(missing_ok=True)

    def _check_free(self, lock: Path | None, now: float) -> str:
        """Returns what to say of a lock that is taken over, "" where none is.

        Raises:
            SafecommError: where a run has the lock.
        """
        if not lock or not (found := _read(lock)):
            return ""
        owner, touched = found
        is_dead = owner is not None and owner.is_dead
        if not is_dead and now - touched <= STALE:
            self._refuse(lock, now - touched)
        why = "is gone" if is_dead else f"gave no sign for {now - touched:.0f} s"
        return f"{self._folder}: going on in the place of {owner or 'a run'}, which {why}"

    def _refuse(self, lock: Path | None, silent: float) -> None:
        owner = found[0] if lock and (found := _read(lock)) else None
        raise SafecommError(
            f"{self._folder}: another `safecomm run` is working here: {owner or 'its lock can not be read'}; its last "
            f"sign was {max(0.0, silent):.0f} s ago; wait for it, or give this sweep another name"
        )


@contextmanager
def only_run(folder: Path, say: Callable[[str], None]) -> Iterator[RunLock]:
    """Holds the folder's lock. Where another run takes it over, as after a long sleep of this machine, this one stops.

    Raises:
        SafecommError: where another run has the lock, or took it over.
    """
    lock, is_over, main = RunLock(folder, say), threading.Event(), threading.get_ident()

    def keep() -> None:
        while not is_over.wait(BEAT):
            lock.beat()
            if lock.is_lost:
                signal.pthread_kill(main, signal.SIGINT)  # as Ctrl-C does, which Ray Tune ends well on
                return

    # Jobs in the background ignore it, and Ray blocks it in those that it starts, but they must stop as well.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=keep, name="run-lock", daemon=True)
    thread.start()
    try:
        yield lock
    except (KeyboardInterrupt, StoppedError) as error:
        if not lock.is_lost:
            raise
        raise SafecommError(
            f"{folder}: another `safecomm run` took this folder over, since this one gave no sign for {STALE:.0f} s; "
            "this one stopped, and what it finished is kept"
        ) from error
    finally:
        is_over.set()
        thread.join()
        signal.signal(signal.SIGINT, handler or signal.SIG_DFL)  # none where C code had set it
        lock.release()


def _lock_files(folder: Path) -> list[Path]:
    return [path for path in folder.glob(".lock.*") if path.suffix[1:].isdigit()]


def _newest(folder: Path) -> Path | None:
    return max(_lock_files(folder), key=_number, default=None)


def _number(lock: Path | None) -> int:
    return int(lock.suffix[1:]) if lock else 0


def _read(lock: Path) -> tuple[Owner | None, float] | None:
    """Returns a lock's owner (None where it can't be read) and when it was touched; None for a lock that is free."""
    try:
        with lock.open(encoding="utf-8") as file:  # opening asks a network file system for the present state
            text, touched = file.read(), os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return None
    if not text:
        return None
    try:
        record = json.loads(text)
        return Owner(**{field.name: record[field.name] for field in fields(Owner)}), touched
    except (ValueError, KeyError, TypeError):
        return None, touched


def _host() -> str:
    numbering = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()} {os.readlink(numbering)}" if numbering.exists() else socket.gethostname()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())
