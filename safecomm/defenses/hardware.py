"""The GPU and the processor cores that this process may use, inside Ray actors and outside."""

import os
import sys

import torch

MAX_THREADS = 32
"""Limit in Ray actors: more threads read no faster, and each may hold a module in fp32."""


def device() -> torch.device:
    """Returns the device for large products: the GPU if this process may use one.

    Ray 2.60 does not hide GPUs from actors that reserve none, such as trials; other actors own those GPUs.
    """
    may_use = _ray_gpus() != 0 and torch.cuda.is_available()
    return torch.device("cuda" if may_use else "cpu")


def thread_count() -> int:
    """Returns how many modules to process concurrently: torch's thread count, or the node's cores in a Ray actor.

    Ray sets OMP_NUM_THREADS, and with it torch's count, to the CPUs that an actor reserves, rounded down to at least
    one. For us those are scheduling units, not cores.
    """
    if _ray_gpus() is None:
        return torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MAX_THREADS)


def _ray_gpus() -> int | None:
    """Returns how many GPUs Ray assigned to this process; None outside a Ray session."""
    ray = sys.modules.get("ray")  # an actor has imported it; `safecomm realign` must not
    return len(ray.get_gpu_ids()) if ray and ray.is_initialized() else None
