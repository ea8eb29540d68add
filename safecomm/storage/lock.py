"""A lock that processes on several machines can have, one at a time, wherever its marks lie.

Whoever has it made the mark with the highest number, which says who that is, and touches it now and then. To take over
a lock that nobody touches any more is to make the mark of the next number: of all who try, one can. The highest mark is
never removed, an empty one is free. This needs no flock, which a network file system may not heed and a bucket lacks.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from safecomm.errors import StorageError
from safecomm.storage.lease_records import LeaseRecords
from safecomm.storage.owner import Owner

HEARTBEAT_SECONDS = 10.0
"""Seconds between two touches."""
STALE_SECONDS = 60.0
"""Seconds without a touch after which a lock may be taken over."""
POLL_SECONDS = 2.0
"""Seconds between two looks at a lock that one waits for."""


class HeldError(Exception):
    """Somebody else has the lock."""

    def __init__(self, owner: Owner | None, silent: float):
        self.owner, self.silent = owner, max(0.0, silent)
        """Who, None where that can't be read, and seconds since the last sign."""
        super().__init__(f"{owner or 'somebody'} has the lock")


class Lock:
    """The lock of some records. `heartbeat` must be called every `HEARTBEAT_SECONDS` seconds while it is held."""

    def __init__(self, records: LeaseRecords):
        """Takes the lock; `taken_over` says in words from whom, if from anybody.

        Raises:
            HeldError: where another has it, or won it meanwhile.
        """
        self._records = records
        self.is_lost = False
        newest = self._newest()
        self.taken_over = self._check_free(newest)
        self._number, self._text = newest + 1, Owner.this().written()
        if not records.create(self._number, self._text):
            raise self._held(self._number, 0.0)
        if (newest := self._newest()) != self._number:  # two others came and went while we looked
            records.remove(self._number)
            raise self._held(newest, 0.0)
        for old in records.numbers():
            if old < self._number:
                records.remove(old)

    def heartbeat(self) -> None:
        """Shows that its holder goes on, or notices that another has taken the lock."""
        try:
            self.is_lost = self.is_lost or self._newest() != self._number
            if not self.is_lost:
                self._records.touch(self._number, self._text)
        except FileNotFoundError:
            self.is_lost = True
        except StorageError:  # a bucket that does not answer now may do so at the next beat
            return

    def release(self) -> None:
        """Frees the lock, unless another has it."""
        if not self.is_lost:
            self._records.empty(self._number)

    @contextmanager
    def held(self, when_lost: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Beats in a thread of its own, and frees the lock at last."""
        is_over = threading.Event()

        def keep() -> None:
            while not is_over.wait(HEARTBEAT_SECONDS):
                self.heartbeat()
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
        return max(self._records.numbers(), default=0)

    def _check_free(self, number: int) -> str:
        """Returns what to say of a lock that is taken over, "" where none is.

        Raises:
            HeldError: where another has the lock.
        """
        found = self._records.read(number) if number else None
        if not found or not found[0]:
            return ""
        owner, silent = Owner.read(found[0]), self._records.now() - found[1]
        is_dead = owner is not None and owner.is_dead
        if not is_dead and silent <= STALE_SECONDS:
            raise HeldError(owner, silent)
        return f"{owner or 'a run'}, which {'is gone' if is_dead else f'gave no sign for {silent:.0f} s'}"

    def _held(self, number: int, silent: float) -> HeldError:
        found = self._records.read(number)
        return HeldError(Owner.read(found[0]) if found else None, silent)


@contextmanager
def waiting_lock(records: LeaseRecords) -> Iterator[None]:
    """Holds a lock, after waiting for whoever has it."""
    while True:
        try:
            lock = Lock(records)
            break
        except HeldError:
            time.sleep(POLL_SECONDS)
    with lock.held():
        yield
