"""A process uses a GPU only if it owns one, and all cores even if Ray reserves a fraction of one for it."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from safecomm.defenses.hardware import MAX_THREADS, device, thread_count

SCRIPT = """
import ray
from test_hardware import used_in_an_actor

ray.init("local", num_cpus=4, num_gpus=2, include_dashboard=False, logging_level="ERROR")
for gpus in (0, 1):
    print(*ray.get(ray.remote(num_cpus=0.05, num_gpus=gpus)(used_in_an_actor).remote()))
"""


def used_in_an_actor() -> tuple[str, int]:
    """Returns the device and the thread count on a machine that appears to have GPUs, as the defenses ask for them."""
    torch.cuda.is_available = lambda: True
    with ThreadPoolExecutor(1) as pool:
        return str(pool.submit(device).result()), thread_count()


@pytest.mark.ray
@pytest.mark.slow
def test_an_actor_uses_a_gpu_only_if_ray_assigned_one_and_all_cores() -> None:
    environment = os.environ | {"PYTHONPATH": f"{os.environ.get('PYTHONPATH', '.')}:{os.path.dirname(__file__)}"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)
    cores = min(len(os.sched_getaffinity(0)), MAX_THREADS)
    assert done.stdout.splitlines()[-2:] == [f"cpu {cores}", f"cuda {cores}"], done.stderr


def test_a_process_outside_ray_uses_the_gpu_that_it_sees_and_torchs_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    assert str(device()) == "cuda" and thread_count() == torch.get_num_threads()
