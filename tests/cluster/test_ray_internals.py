"""Ray still has the internals that the project uses."""

import urllib.error
import urllib.request
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import serve
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.data._internal.execution import streaming_executor_state
from ray.data._internal.usage import collector
from ray.exceptions import OutOfMemoryError, RayActorError

from safecomm.cluster.ray_internals import (
    POLL_SECONDS,
    dashboard_url,
    live_jobs,
    poll_ray_data_less_often,
    retry_trials_killed_for_memory,
    serve_is_running,
)
from safecomm.sweep.trial import is_lost


@pytest.mark.ray
def test_this_job_is_alive_and_an_unknown_one_is_not(ray_session: None) -> None:
    job = ray.get_runtime_context().get_job_id()
    assert live_jobs([job, "fe000000"]) == {job}


@pytest.mark.ray
def test_the_address_of_the_dashboard_answers(ray_session: None) -> None:
    try:
        status = urllib.request.urlopen(f"{dashboard_url()}/api/version", timeout=60).status
    except urllib.error.HTTPError as error:
        status = error.code
    assert status in (200, 401)  # 401: it asks for Ray's token


@pytest.mark.ray
def test_running_ray_serve_is_detected(ray_session: None) -> None:
    serve.start(proxy_location="Disabled")  # and left running, as the fleets of other tests need it
    assert serve_is_running()


def test_a_trial_that_was_killed_for_memory_fails_alone_and_not_the_experiment() -> None:
    retry_trials_killed_for_memory()
    retry_trials_killed_for_memory()  # once per experiment
    told: list[Exception] = []
    actor = SimpleNamespace(actor_id=1, _on_error=None)
    task = SimpleNamespace(_tracked_actor=actor, _on_error=lambda actor, error: told.append(error))
    manager = RayActorManager(resource_manager=None)
    manager._cleanup_actor = lambda tracked_actor: None  # it has no real actor
    manager._actor_task_failed(tracked_actor_task=task, exception=OutOfMemoryError("the node ran low on memory"))
    (error,) = told
    assert isinstance(error, RayActorError) and "the node ran low on memory" in str(error)
    assert is_lost(OutOfMemoryError("the same, of a task that a trial started"))
    with pytest.raises(RuntimeError, match="unexpected"):
        manager._actor_task_failed(tracked_actor_task=task, exception=ValueError("a fault of Tune's"))


@pytest.mark.ray
def test_ray_data_waits_longer_for_its_tasks_than_by_default(
    ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    wait = ray.wait

    def noted(*refs: Any, timeout: float | None = None, **options: Any) -> Any:
        waits.append(timeout or 0.0)
        return wait(*refs, timeout=timeout, **options)

    monkeypatch.setattr(streaming_executor_state.ray, "wait", noted)
    poll_ray_data_less_often()
    assert ray.data.range(2).map(lambda row: row).take_all() == [{"id": 0}, {"id": 1}]
    assert POLL_SECONDS in waits and collector.usage_collection_disabled()
