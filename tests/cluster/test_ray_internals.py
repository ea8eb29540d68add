"""Ray still has the internals that the project uses."""

import pytest
import ray
from ray import serve

from safecomm.cluster.ray_internals import live_jobs, serve_is_running


@pytest.mark.ray
def test_this_job_is_alive_and_an_unknown_one_is_not(ray_session: None) -> None:
    job = ray.get_runtime_context().get_job_id()
    assert live_jobs([job, "fe000000"]) == {job}


@pytest.mark.ray
def test_running_ray_serve_is_detected(ray_session: None) -> None:
    serve.start(proxy_location="Disabled")  # and left running, as the fleets of other tests need it
    assert serve_is_running()
