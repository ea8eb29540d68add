"""Shuts down a job's engines when its driver exits, even if it is killed.

Ray Serve applications outlive the driver that started them. A stopped driver has no time to shut them down, and a
killed one can't. So a detached actor watches the driver and cleans up after it.
"""

import threading
import time

from safecomm.cluster.ray_internals import live_jobs, serve_is_running

APPS = "safecomm-"
"""Prefix of the names of our Ray Serve applications."""
NAMESPACE = "safecomm"
POLL_SECONDS = 1.0
"""Interval at which the actor checks the driver."""


def app_name(fleet: str) -> str:
    """Returns the name of a fleet's Ray Serve application, which is unique to this job."""
    return f"{APPS}{fleet}-{_this_job()}"


def start_cleanup() -> None:
    """Starts a detached actor on this node that deletes the Serve applications of this and other ended jobs."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    job, here = _this_job(), ray.get_runtime_context().get_node_id()
    ray.remote(CleanupActor).options(
        name=job,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=0,
        max_restarts=-1,
        # On another node it would keep the autoscaler from removing that node.
        scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=here, soft=True),
    ).remote(job)


class CleanupActor:
    """Waits for a job to end, then cleans up."""

    def __init__(self, job: str):
        threading.Thread(target=self._watch, args=[job], daemon=True).start()

    def _watch(self, job: str) -> None:
        import ray

        while not _cleaned_up(job):
            time.sleep(POLL_SECONDS)
        ray.kill(ray.get_runtime_context().current_actor, no_restart=True)


def _cleaned_up(job: str) -> bool:
    """Deletes the applications of ended jobs; returns whether this job has ended and is cleaned up."""
    from ray.exceptions import RayError

    try:
        is_over = job not in live_jobs([job])
        _delete_orphaned_apps()
        if is_over:
            _shut_down_idle_serve(job)
        return is_over
    except RayError:  # the head node or Ray Serve is restarting
        return False


def _this_job() -> str:
    import ray

    job: str = ray.get_runtime_context().get_job_id()
    return job


def _apps() -> list[str]:
    """Returns the names of all Ray Serve applications, without starting Ray Serve."""
    from ray import serve

    return list(serve.status().applications) if serve_is_running() else []


def _delete_orphaned_apps() -> None:
    """Deletes the applications of ended jobs."""
    from ray import serve

    jobs = {name: name.rpartition("-")[2] for name in _apps() if name.startswith(APPS)}
    alive = live_jobs(jobs.values())
    for name, job in jobs.items():
        if job not in alive:
            serve.delete(name)


def _shut_down_idle_serve(job: str) -> None:
    """Shuts down Ray Serve unless another application exists or another of our jobs may start one."""
    import ray
    from ray import serve

    cleaners = [actor["name"] for actor in ray.util.list_named_actors(True) if actor["namespace"] == NAMESPACE]
    if cleaners == [job] and not _apps():
        serve.shutdown()
