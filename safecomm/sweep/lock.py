"""Ensures one run at a time in a run folder, including runs on different machines."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safecomm.errors import SafecommError, StoppedError
from safecomm.storage.disk import report_disk_full
from safecomm.storage.lock import STALE_SECONDS, HeldError, Lock
from safecomm.storage.shared import lease_records


class RunLock(Lock):
    """The lock of a run folder."""

    def __init__(self, folder: Path, say: Callable[[str], None]):
        """Acquires the lock.

        Args:
            folder: the run folder.
            say: receives a message if an expired lock is taken over.

        Raises:
            SafecommError: if another run holds the lock or acquires it first.
        """
        try:
            with report_disk_full(folder):
                super().__init__(lease_records(folder / ".lock"))
        except HeldError as error:
            raise SafecommError(
                f"{folder}: another `safecomm run` is using this folder: {error.owner or 'owner unknown'}; it last "
                f"renewed its lock {error.silent:.0f} s ago; wait for it to finish or give this sweep another name"
            ) from error
        if self.taken_over:
            say(f"{folder}: taking over from {self.taken_over}")


@contextmanager
def only_run(folder: Path, say: Callable[[str], None]) -> Iterator[RunLock]:
    """Holds the folder's lock; stops this run if another takes over, e.g. after this machine was suspended.

    Raises:
        SafecommError: if another run holds the lock or takes it over.
    """
    lock, main = RunLock(folder, say), threading.get_ident()
    # Background jobs ignore SIGINT, and Ray blocks it in the jobs that it starts; both must still stop.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        # Ray Tune shuts down cleanly on SIGINT.
        with lock.held(on_lost=lambda: signal.pthread_kill(main, signal.SIGINT)):
            yield lock
    except (KeyboardInterrupt, StoppedError) as error:
        if not lock.is_lost:
            raise
        raise SafecommError(
            f"{folder}: another `safecomm run` took over this folder because this one did not renew its lock for "
            f"{STALE_SECONDS:.0f} s; this run stopped, and its finished work is kept"
        ) from error
    finally:
        signal.signal(signal.SIGINT, handler or signal.SIG_DFL)  # None if the handler was installed by C code
