"""Ray: the cluster that safecomm is given, or one on this machine."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from safecomm.errors import SafecommError

FEWEST_CPUS = 8
"""What Ray is told this machine has at least: Ray Data books a whole CPU for each stage of each trial, busy or not."""
CPU_SHARE = 0.05
"""CPUs that a trial, a training rank or a replica books with Ray. These are bookings, not cores: were they whole, the
stages of one sweep would wait for each other for ever on a machine with two."""


@dataclass(frozen=True)
class Resources:
    """What a machine or a cluster has."""

    cpus: float
    gpus: float


@contextmanager
def ray_session(address: str | None) -> Iterator[Resources]:
    """Connects to the cluster at an address or, in a submitted job, to the job's; else starts Ray on this machine.

    What was started here ends with it.

    Raises:
        SafecommError: when nobody answers at the address.
    """
    # Ray's start-up limit counts cores, and warns of every worker beyond it, idle as ours mostly are.
    os.environ.setdefault("RAY_worker_maximum_startup_concurrency", str(FEWEST_CPUS))
    import ray

    address = address or os.environ.get("RAY_ADDRESS")
    joined = ray.is_initialized()
    if not joined:
        try:
            if address:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            else:
                cpus = max(FEWEST_CPUS, os.cpu_count() or 1)
                # The dashboard stays on: Ray Train's cleaner asks its API whether a fine-tune still runs.
                ray.init(address="local", num_cpus=cpus, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise SafecommError(f"no Ray cluster at {address}: {error}. Start one with `ray start --head`") from error
    try:
        total = ray.cluster_resources()
        yield Resources(cpus=total.get("CPU", 0.0), gpus=total.get("GPU", 0.0))
    finally:
        if not joined:
            ray.shutdown()
