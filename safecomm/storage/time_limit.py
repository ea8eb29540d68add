"""Bounds the time of what a file holds and this process runs: patterns and templates, which may never end."""

import ctypes
import functools
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class _TimeUpError(Exception):
    """The time is up."""


@contextmanager
def time_limit(seconds: float, what: str) -> Iterator[None]:
    """Bounds the time of a pattern or template that a file holds; either may take forever.

    It works on any thread. On the main thread a signal also ends a single long operation, e.g. matching a pattern.

    Raises:
        ValueError: if the time is up.
    """
    on_main_thread = threading.current_thread() is threading.main_thread()
    try:
        with _alarm(seconds) if on_main_thread else _interrupted(seconds):
            yield
    except _TimeUpError as error:
        raise ValueError(f"{what} takes more than {seconds:g} s") from error


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _TimeUpError

    before = signal.signal(signal.SIGALRM, stop)
    left, every = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left, every)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _interrupted(seconds: float) -> Iterator[None]:
    watch = _watch(os.getpid())
    limit = watch.add(seconds)
    try:
        yield
    finally:
        watch.remove(limit)


class _Watch:
    """A thread that raises the error in others whose time is up, between two instructions of Python.

    There is one for all limits of a process: to start one for each would take most of an engine's time.
    """

    def __init__(self) -> None:
        """Starts the thread."""
        self._limits: dict[object, tuple[int, float]] = {}
        # Limited threads enter the lock, not the condition: interrupted in the condition's code, they would keep it.
        self._lock, self._wakes_at = threading.Lock(), math.inf
        self._changed = threading.Condition(self._lock)
        threading.Thread(target=self._run, name="time limits", daemon=True).start()

    def add(self, seconds: float) -> object:
        """Limits the time of this thread; returns the limit."""
        limit, end = object(), time.monotonic() + seconds
        with self._lock:
            self._limits[limit] = (threading.get_ident(), end)
            if end < self._wakes_at:
                self._changed.notify()
        return limit

    def remove(self, limit: object) -> None:
        """Ends a limit of this thread, and takes back an error that was not raised yet."""
        with self._lock:
            self._limits.pop(limit, None)
        _raise_in(threading.get_ident(), None)

    def _run(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                for limit in [limit for limit, (_, end) in self._limits.items() if end <= now]:
                    thread, _ = self._limits.pop(limit)
                    _raise_in(thread, _TimeUpError)
                self._wakes_at = min((end for _, end in self._limits.values()), default=math.inf)
                self._changed.wait(None if math.isinf(self._wakes_at) else self._wakes_at - now)


@functools.cache
def _watch(process: int) -> _Watch:
    """Returns the watch of a process; that of its parent has no thread here."""
    return _Watch()


def _raise_in(thread: int, error: type[Exception] | None) -> None:
    found = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), found)
