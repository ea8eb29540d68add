"""One run at a time in a run folder, also where the folder is shared and the runs are on several machines."""

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
        """Takes the lock.

        Args:
            folder: the run folder.
            say: told in a line when a lock is taken over.

        Raises:
            SafecommError: where another run has it, or won it meanwhile.
        """
        try:
            with report_disk_full(folder):
                super().__init__(lease_records(folder / ".lock"))
        except HeldError as error:
            raise SafecommError(
                f"{folder}: another `safecomm run` is working here: {error.owner or 'its lock can not be read'}; its "
                f"last sign was {error.silent:.0f} s ago; wait for it, or give this sweep another name"
            ) from error
        if self.taken_over:
            say(f"{folder}: going on in the place of {self.taken_over}")


@contextmanager
def only_run(folder: Path, say: Callable[[str], None]) -> Iterator[RunLock]:
    """Holds the folder's lock. Where another run takes it over, as after a long sleep of this machine, this one stops.

    Raises:
        SafecommError: where another run has the lock, or took it over.
    """
    lock, main = RunLock(folder, say), threading.get_ident()
    # Jobs in the background ignore it, and Ray blocks it in those that it starts, but they must stop as well.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        # As Ctrl-C does, which Ray Tune ends well on.
        with lock.held(when_lost=lambda: signal.pthread_kill(main, signal.SIGINT)):
            yield lock
    except (KeyboardInterrupt, StoppedError) as error:
        if not lock.is_lost:
            raise
        raise SafecommError(
            f"{folder}: another `safecomm run` took over this folder because this one did not renew its lock for "
            f"{STALE_SECONDS:.0f} s; this run stopped, and its finished work is kept"
        ) from error
    finally:
        signal.signal(signal.SIGINT, handler or signal.SIG_DFL)  # none where C code had set it
