"""Ray: the cluster that safecomm is given, or one on this machine."""

import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from safecomm.errors import SafecommError

FEWEST_CPUS = 8
"""What Ray is told this machine has at least: Ray Data books a whole CPU for each stage of each trial, busy or not."""
CPU_SHARE = 0.05
"""CPUs that a trial, a training rank or a replica books with Ray. These are bookings, not cores: were they whole, the
stages of one sweep would wait for each other for ever on a machine with two."""

TRIALS_WITHOUT_GPU = 2
"""Trials at a time on a machine without GPUs, which share its cores."""


@dataclass(frozen=True)
class Resources:
    """What a machine or a cluster has."""

    cpus: float
    gpus: float
    labels: Sequence[Mapping[str, str]] = ()
    """The labels of each node."""


@contextmanager
def ray_session(address: str | None) -> Iterator[Resources]:
    """Connects to the cluster at an address or, in a submitted job, to the job's; else starts Ray on this machine.

    What was started here ends with it, and what a job leaves on a cluster goes when its driver does. SIGTERM ends a
    driver as Ctrl-C would.

    Raises:
        SafecommError: when nobody answers at the address, or it does not let us in.
    """
    # Ray's start-up limit counts cores, and warns of every worker beyond it, idle as ours mostly are.
    os.environ.setdefault("RAY_worker_maximum_startup_concurrency", str(FEWEST_CPUS))
    import ray

    from safecomm.cluster.cleanup import start_cleanup

    address = address or os.environ.get("RAY_ADDRESS")
    joined = ray.is_initialized()
    if not joined:
        _connect(address)
    try:
        with _sigterm_as_sigint():
            if address and not joined:
                start_cleanup()
            yield _resources()
    finally:
        if not joined:
            ray.shutdown()


def _connect(address: str | None) -> None:
    import ray
    from ray.exceptions import AuthenticationError

    from safecomm.cluster.reach import check_ray_address, refused

    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not address:
        # The dashboard stays on: Ray Train's cleaner asks its API whether a fine-tune still runs.
        ray.init(address="local", num_cpus=max(FEWEST_CPUS, os.cpu_count() or 1), **quiet)
        return
    check_ray_address(address)
    try:
        ray.init(address=address, **quiet)
    except (AuthenticationError, ConnectionError, ValueError, RuntimeError) as error:
        if ":" in address or isinstance(error, AuthenticationError):  # somebody listens there, but does not let us in
            raise refused(address) from error
        raise SafecommError(f"no Ray cluster at {address}: {error}. Start one with `ray start --head`") from error


@contextmanager
def _sigterm_as_sigint() -> Iterator[None]:
    """Has SIGTERM, with which `ray job stop` ends a driver, do what Ctrl-C does, also where SIGINT is ignored."""

    def stop(number: int, frame: FrameType | None) -> None:
        handler = signal.getsignal(signal.SIGINT)
        (handler if callable(handler) else signal.default_int_handler)(signal.SIGINT, frame)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _resources() -> Resources:
    import ray

    total = ray.cluster_resources()
    labels = [node["Labels"] for node in ray.nodes() if node["Alive"]]
    return Resources(cpus=total.get("CPU", 0.0), gpus=total.get("GPU", 0.0), labels=labels)
