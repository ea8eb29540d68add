"""A lease-based lock for processes on several machines.

The holder is the process that created the record with the highest number. The record names the holder, who renews it
with a heartbeat. A process takes over an expired lock by creating the next record, which only one contender can do.
The highest record is never removed; an empty one means that the lock is free. The lock needs no flock: network file
systems may ignore it, and buckets have none.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from safecomm.errors import StorageError
from safecomm.storage.lease_records import LeaseRecords
from safecomm.storage.owner import Owner

HEARTBEAT_SECONDS = 10.0
"""Interval between renewals."""
STALE_SECONDS = 60.0
"""Time without a renewal after which another process may take over the lock."""
POLL_SECONDS = 2.0
"""Interval at which a waiting process checks the lock."""


class HeldError(Exception):
    """Another process holds the lock."""

    def __init__(self, owner: Owner | None, silent: float):
        self.owner, self.silent = owner, max(0.0, silent)
        """The holder, None if unreadable, and the seconds since its last renewal."""
        super().__init__(f"{owner or 'another process'} holds the lock")


class Lock:
    """A held lock. The holder must call `heartbeat` every `HEARTBEAT_SECONDS`, or use `held`."""

    def __init__(self, records: LeaseRecords):
        """Acquires the lock; `taken_over` describes the previous holder if its lease had expired.

        Raises:
            HeldError: if another process holds the lock or acquires it first.
        """
        self._records = records
        self.is_lost = False
        newest = self._newest()
        self.taken_over = self._check_free(newest)
        self._number, self._text = newest + 1, Owner.this().written()
        if not records.create(self._number, self._text):
            raise self._held(self._number, 0.0)
        if (newest := self._newest()) != self._number:  # others acquired and released it between our read and create
            records.remove(self._number)
            raise self._held(newest, 0.0)
        for old in records.numbers():
            if old < self._number:
                records.remove(old)

    def heartbeat(self) -> None:
        """Renews the lease, or sets `is_lost` if another process has taken over."""
        try:
            self.is_lost = self.is_lost or self._newest() != self._number
            if not self.is_lost:
                self._records.touch(self._number, self._text)
        except FileNotFoundError:
            self.is_lost = True
        except StorageError:  # the bucket may respond again at the next heartbeat
            return

    def release(self) -> None:
        """Releases the lock unless it was lost."""
        if not self.is_lost:
            self._records.empty(self._number)

    @contextmanager
    def held(self, on_lost: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Renews the lease in a background thread; releases the lock on exit.

        Args:
            on_lost: called in that thread if another process takes over.
        """
        done = threading.Event()

        def renew() -> None:
            while not done.wait(HEARTBEAT_SECONDS):
                self.heartbeat()
                if self.is_lost:
                    on_lost()
                    return

        thread = threading.Thread(target=renew, name="lock", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self.release()

    def _newest(self) -> int:
        return max(self._records.numbers(), default=0)

    def _check_free(self, number: int) -> str:
        """Returns a description of the expired holder, or "" if the lock was free.

        Raises:
            HeldError: if another process holds the lock.
        """
        found = self._records.read(number) if number else None
        if not found or not found[0]:
            return ""
        owner, silent = Owner.read(found[0]), self._records.now() - found[1]
        is_dead = owner is not None and owner.is_dead
        if not is_dead and silent <= STALE_SECONDS:
            raise HeldError(owner, silent)
        return f"{owner or 'a run'}, which {'has died' if is_dead else f'was silent for {silent:.0f} s'}"

    def _held(self, number: int, silent: float) -> HeldError:
        found = self._records.read(number)
        return HeldError(Owner.read(found[0]) if found else None, silent)


def is_held(records: LeaseRecords) -> bool:
    """Returns whether a process seems to hold a lock, by this machine's clock; writes nothing."""
    found = records.read(max(records.numbers(), default=0))
    if not found or not found[0]:
        return False
    owner = Owner.read(found[0])
    return time.time() - found[1] <= STALE_SECONDS and not (owner and owner.is_dead)


@contextmanager
def waiting_lock(records: LeaseRecords) -> Iterator[None]:
    """Waits for the lock and holds it."""
    while True:
        try:
            lock = Lock(records)
            break
        except HeldError:
            time.sleep(POLL_SECONDS)
    with lock.held():
        yield
