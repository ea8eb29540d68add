"""Takes a job's engines down when its driver ends, however it ends.

Ray Serve's applications outlive the driver that started them. One that is stopped has no time to wait for them, and one
that is killed can't; so an actor that outlives the driver as well looks after it.
"""

import threading
import time

from safecomm.cluster.ray_internals import live_jobs, serve_is_running

APPS = "safecomm-"
"""What the names of our Ray Serve applications begin with."""
NAMESPACE = "safecomm"
LOOK_SECONDS = 1.0
"""Time between two looks at the driver."""


def app_name(fleet: str) -> str:
    """Returns the name of a fleet's Ray Serve application, which this job alone has."""
    return f"{APPS}{fleet}-{_this_job()}"


def start_cleanup() -> None:
    """Has an actor on this node take down what this job leaves in Ray Serve, and what jobs that are over left."""
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
        # Elsewhere it would keep a node that the autoscaler could give back.
        scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=here, soft=True),
    ).remote(job)


class CleanupActor:
    """Waits for a job's end."""

    def __init__(self, job: str):
        threading.Thread(target=self._keep, args=[job], daemon=True).start()

    def _keep(self, job: str) -> None:
        import ray

        while not _tidied_up(job):
            time.sleep(LOOK_SECONDS)
        ray.kill(ray.get_runtime_context().current_actor, no_restart=True)


def _tidied_up(job: str) -> bool:
    """Takes down what jobs that are over left; returns whether this one is over, and nothing is left of it."""
    from ray.exceptions import RayError

    try:
        is_over = job not in live_jobs([job])
        _delete_forsaken()
        if is_over:
            _shut_down_idle_serve(job)
        return is_over
    except RayError:  # the cluster's head, or Ray Serve, is restarting
        return False


def _this_job() -> str:
    import ray

    job: str = ray.get_runtime_context().get_job_id()
    return job


def _apps() -> list[str]:
    """Returns the names of all of Ray Serve's applications; without starting it."""
    from ray import serve

    return list(serve.status().applications) if serve_is_running() else []


def _delete_forsaken() -> None:
    """Takes down the applications of jobs that are over."""
    from ray import serve

    jobs = {name: name.rpartition("-")[2] for name in _apps() if name.startswith(APPS)}
    alive = live_jobs(jobs.values())
    for name, job in jobs.items():
        if job not in alive:
            serve.delete(name)


def _shut_down_idle_serve(job: str) -> None:
    """Ends Ray Serve's own processes, unless somebody else has an application or another job of ours is about to."""
    import ray
    from ray import serve

    cleaners = [actor["name"] for actor in ray.util.list_named_actors(True) if actor["namespace"] == NAMESPACE]
    if cleaners == [job] and not _apps():
        serve.shutdown()
