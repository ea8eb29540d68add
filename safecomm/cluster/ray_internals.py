"""All uses of Ray 2.60's private API. A later Ray may change it without notice.

If it does, tests/cluster/test_ray_internals.py and tests/cluster/test_upload.py fail.
"""

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.5
"""The most seconds for which Ray Data waits for its tasks before it looks for their results."""


def live_jobs(jobs: Iterable[str]) -> set[str]:
    """Returns the jobs whose drivers are alive.

    Ray's public job list needs the dashboard, which a cluster may not run and which may require a token.
    """
    from ray._private.worker import global_worker

    def is_alive(job: str) -> bool:
        found: Any = global_worker.gcs_client.get_all_job_info(
            job_or_submission_id=job, skip_submission_job_info_field=True, skip_is_running_tasks_field=True
        )
        return any(not info.is_dead for info in found.values())

    return {job for job in set(jobs) if is_alive(job)}


def dashboard_url() -> str:
    """Returns the address of the dashboard of the connected cluster, as its head node sees it; empty without one."""
    from ray._private.worker import get_dashboard_url

    address = get_dashboard_url()
    return f"http://{address}" if address else ""


def serve_is_running() -> bool:
    """Returns whether the cluster runs Ray Serve. The public `serve.status` would start it."""
    import ray

    try:
        ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    except ValueError:
        return False
    return True


def retry_trials_killed_for_memory() -> None:
    """Makes Ray Tune treat a trial that Ray killed because its node ran out of memory like one whose process died.

    Tune 2.60 does not expect this error and ends the whole experiment with it.
    """
    from ray.air.execution._internal.actor_manager import RayActorManager
    from ray.exceptions import OutOfMemoryError, RayActorError

    failed = RayActorManager._actor_task_failed
    if getattr(failed, "expects_memory_kills", False):
        return

    def wrapped(self: Any, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=str(exception))
        failed(self, tracked_actor_task=tracked_actor_task, exception=exception)

    wrapped.expects_memory_kills = True  # type: ignore[attr-defined]
    RayActorManager._actor_task_failed = wrapped


def poll_ray_data_less_often() -> None:
    """Makes Ray Data look for results of its tasks twice a second, not ten times, and collect no usage statistics.

    Every trial has such a loop in its process: ten times a second it takes about a twentieth of a core, and answers of
    a language model take seconds. The statistics are read from the dashboard as often.
    """
    from ray.data._internal.execution import streaming_executor_state

    os.environ.setdefault("RAY_DATA_USAGE_DISABLED", "1")
    streaming_executor_state.WAIT_FOR_TASK_COMPLETION_TIMEOUT_S = POLL_SECONDS


def zip_working_directory(folder: Path, target: Path, excludes: Sequence[str], logger: logging.Logger) -> None:
    """Packs a directory like `ray job submit`, without files matched by `.gitignore`, `.rayignore` and `excludes`.

    Ray's public API packs and uploads in one step, but the archive must be scanned for secrets in between.
    """
    from ray._private.runtime_env.packaging import create_package

    create_package(str(folder), target, True, excludes=list(excludes), logger=logger)
