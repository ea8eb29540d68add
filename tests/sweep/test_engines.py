"""A sweep waits for its engines before it hands out trials, however late they start."""

from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import serve
from ray.serve.schema import ApplicationStatus

from safecomm.errors import EvaluationError
from safecomm.serving import fleet
from safecomm.serving.engine import EngineSettings
from safecomm.serving.fleet import TARGET, Fleet
from safecomm.sweep.engines import wait_for_engines

SETTINGS = EngineSettings(max_new_tokens=8, max_model_len=64, max_lora_rank=8, lora_targets=("q_proj",))
FLEETS = [Fleet("vllm", "model", SETTINGS, replicas=1, name=name) for name in (TARGET, "guard")]
CAPACITY = 4 * 3600.0
"""When the cluster gets the nodes for the engines."""


class Clock:
    """A clock that only waiting advances."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(fleet, "time", clock)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_job_id=lambda: "01"))
    return clock


def serving(monkeypatch: pytest.MonkeyPatch, status: Any) -> None:
    """Makes Ray Serve report a status for both applications."""
    app = SimpleNamespace(message="no GPU", deployments={}, status=None)

    def reported() -> SimpleNamespace:
        app.status = status()
        return SimpleNamespace(applications={f"safecomm-{one.name}-01": app for one in FLEETS})

    monkeypatch.setattr(serve, "status", reported)


def test_engines_that_start_hours_late_are_waited_for(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    serving(monkeypatch, lambda: ApplicationStatus.DEPLOYING if clock.now < CAPACITY else ApplicationStatus.RUNNING)
    said: list[str] = []
    wait_for_engines(FLEETS, said.append)
    assert clock.now >= CAPACITY and [TARGET in said[0], "guard" in said[1]] == [True, True]


def test_engines_that_can_not_start_end_the_wait_with_their_reason(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving(monkeypatch, lambda: ApplicationStatus.DEPLOY_FAILED)
    with pytest.raises(EvaluationError, match="the engines did not start: no GPU"):
        wait_for_engines(FLEETS, lambda line: None)
