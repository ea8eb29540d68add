"""Ray sessions: on an existing cluster, or on a local one."""

import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from safecomm.errors import SafecommError

MIN_CPUS = 8
"""Minimum CPU count reported to Ray: Ray Data reserves a whole CPU for each stage of each trial, busy or idle."""
CPU_SHARE = 0.05
"""CPUs that a trial, a training rank or a replica reserves in Ray. These are scheduling units, not cores: with whole
CPUs the stages of one sweep would deadlock on a two-core machine."""

TRIALS_WITHOUT_GPU = 2
"""Concurrent trials on a machine without GPUs, where they share the cores."""


@dataclass(frozen=True)
class Resources:
    """The resources of a machine or a cluster."""

    cpus: float
    gpus: float
    labels: Sequence[Mapping[str, str]] = ()
    """The labels of each node."""
    node_gpus: Sequence[float] = ()
    """The GPUs of each node."""


@contextmanager
def ray_session(address: str | None) -> Iterator[Resources]:
    """Connects to the cluster at an address or, in a submitted job, to the job's cluster; else starts Ray locally.

    A local Ray is stopped on exit. On a cluster, a cleanup actor removes the job's applications when its driver exits.
    SIGTERM is handled like Ctrl-C.

    Raises:
        SafecommError: if the address does not answer or rejects our token, or a local Ray does not start.
    """
    # By default Ray limits concurrent worker starts to the core count and warns about each one beyond it.
    os.environ.setdefault("RAY_worker_maximum_startup_concurrency", str(MIN_CPUS))
    import ray

    from safecomm.cluster.cleanup import start_cleanup
    from safecomm.cluster.reachable import check_ray_address

    joined = ray.is_initialized()
    if joined and address:
        check_ray_address(address)  # a wrong address is a mistake, even if this process is connected to a cluster
    address = address or os.environ.get("RAY_ADDRESS")
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

    from safecomm.cluster.reachable import check_ray_address, refused

    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not address:
        _start(quiet)
        return
    check_ray_address(address)
    try:
        ray.init(address=address, **quiet)
    except (AuthenticationError, ConnectionError, ValueError, RuntimeError) as error:
        if ":" in address or isinstance(error, AuthenticationError):  # the port is open, but the token was rejected
            raise refused(address) from error
        raise SafecommError(f"no Ray cluster at {address}: {error}. Start one with `ray start --head`") from error


def _start(how: Mapping[str, Any]) -> None:
    """Starts Ray on this machine.

    Raises:
        SafecommError: if it does not start.
    """
    import ray

    try:
        # Keep the dashboard: Ray Train queries its API to see whether a fine-tune still runs.
        ray.init(address="local", num_cpus=max(MIN_CPUS, os.cpu_count() or 1), **how)
    except OSError:
        raise  # it names the file
    except Exception as error:  # what Ray raises if one of its processes does not start in time
        raise SafecommError(
            f"Ray could not start on this machine: {error} The machine may be overloaded or short of memory; end other "
            "work and run the command again"
        ) from error


@contextmanager
def _sigterm_as_sigint() -> Iterator[None]:
    """Handles SIGTERM, which `ray job stop` sends, like Ctrl-C, even if SIGINT is ignored."""

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
    nodes = [node for node in ray.nodes() if node["Alive"]]
    return Resources(
        cpus=total.get("CPU", 0.0),
        gpus=total.get("GPU", 0.0),
        labels=[node["Labels"] for node in nodes],
        node_gpus=[node["Resources"].get("GPU", 0.0) for node in nodes],
    )
