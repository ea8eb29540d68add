"""The fleet: engines as Ray Serve deployments that live as long as the sweep and are shared by all its trials."""

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from safecomm.cluster.cleanup import app_name
from safecomm.cluster.session import CPU_SHARE
from safecomm.errors import EvaluationError
from safecomm.serving.canary import Canary
from safecomm.serving.engine import Answer, Engine, EngineSettings, Question, failed
from safecomm.spec.sweep import Replicas
from safecomm.storage.store import local_copy

TARGET = "target"
"""The fleet of the model under study; judges have fleets of their own."""
DEPLOYMENT = "engine"
START_SECONDS = 1800.0
CHUNKS_AT_ONCE = 16
"""Chunks of prompts in flight in one replica."""
IDLE_SECONDS = 60.0
"""After which engines that scale to zero are given back."""


def build_engine(name: str, model: str, settings: EngineSettings) -> Engine:
    """Returns the engine that a sweep's `evaluate.engine` names, with the model loaded."""
    if name == "vllm":
        from safecomm.serving.vllm_engine import VllmEngine

        return VllmEngine(model, settings)
    from safecomm.serving.transformers_engine import TransformersEngine

    return TransformersEngine(model, settings)


class Replica:
    """One engine behind Ray Serve."""

    def __init__(self, engine: str, model: str, settings: dict[str, Any]):
        self._engine = build_engine(engine, str(local_copy(Path(model))), EngineSettings(**settings))
        self._canary = Canary(self._engine)

    async def answer(self, questions: list[Question], adapter: str | None) -> list[Answer]:
        """Answers a chunk of questions; with an adapter, once it is proved that the engine applies it."""
        if adapter and not Path(adapter).exists():
            adapter = str(await asyncio.to_thread(local_copy, Path(adapter)))
        if adapter and (reason := await self._canary.check(adapter)):
            return [failed(reason)] * len(questions)
        return await self._engine.answer(questions, adapter)

    async def check_health(self) -> None:
        """Lets Ray Serve replace a replica whose engine is dead."""
        await self._engine.check_health()


@dataclass(frozen=True)
class Fleet:
    """The engines of a sweep: what they load and how many there are."""

    engine: str
    model: str
    settings: EngineSettings
    replicas: int
    name: str = TARGET
    scale_to_zero: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    """Of the nodes that the engines run on."""

    @classmethod
    def of(
        cls, engine: str, model: str, settings: EngineSettings, size: Replicas, on_gpu: bool, name: str = TARGET
    ) -> "Fleet":
        """Returns a fleet of the size that a sweep gives it."""
        placed = replace(
            settings,
            on_gpu=on_gpu,
            tensor_parallel=size.tensor_parallel,
            pipeline_parallel=size.pipeline_parallel,
        )
        return cls(engine, model, placed, size.replicas, name, size.scale_to_zero, size.labels)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Starts the engines and ends them at last; `wait_for_fleet` says when they are up."""
        self.start()
        try:
            yield
        finally:
            stop_fleet(self.name)

    def start(self) -> None:
        """Asks Ray Serve for the engines and returns at once; `wait` says when they are up."""
        from ray import serve

        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        deployment = serve.deployment(Replica, name=DEPLOYMENT).options(
            max_ongoing_requests=CHUNKS_AT_ONCE, **self._number(), **self._resources()
        )
        serve.start(proxy_location="Disabled")
        app = serve.RunTarget(
            deployment.bind(self.engine, self.model, asdict(self.settings)), name=app_name(self.name), route_prefix=None
        )
        serve.run_many([app], wait_for_applications_running=False)

    def _number(self) -> dict[str, Any]:
        """Returns how many replicas there are: always all or, where they are given back, as many as there is work."""
        if not self.scale_to_zero:
            return {"num_replicas": self.replicas}
        limits = {"min_replicas": 0, "initial_replicas": 0, "max_replicas": self.replicas}
        pace = {"target_ongoing_requests": 1, "upscale_delay_s": 0, "downscale_delay_s": IDLE_SECONDS}
        return {"autoscaling_config": limits | pace}

    def _resources(self) -> dict[str, Any]:
        """Returns one replica's share of the cluster; where it is split over GPUs its workers get a bundle each."""
        parallel = self.settings.gpus
        if self.settings.on_gpu and parallel > 1 and self.engine == "vllm":
            bundles = [{"CPU": CPU_SHARE}] + [{"GPU": 1.0, "CPU": CPU_SHARE}] * parallel
            return {
                "placement_group_bundles": bundles,
                "placement_group_bundle_label_selector": [dict(self.labels)],
                "ray_actor_options": {"num_cpus": CPU_SHARE},
            }
        gpus = parallel if self.settings.on_gpu else 0
        return {"ray_actor_options": {"num_cpus": CPU_SHARE, "num_gpus": gpus, "label_selector": dict(self.labels)}}


def wait_for_fleet(seconds: float = START_SECONDS, fleet: str = TARGET) -> None:
    """Returns when the engines are up.

    Raises:
        EvaluationError: when they failed to start, with Ray Serve's reason, or are not up in time.
    """
    from ray import serve
    from ray.serve.schema import ApplicationStatus

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        app = serve.status().applications.get(app_name(fleet))
        if app and app.status == ApplicationStatus.RUNNING:
            return
        # Not where it is unhealthy: Ray Serve is about to replace an engine that died.
        if app and app.status == ApplicationStatus.DEPLOY_FAILED:
            reasons = [app.message, *(deployment.message for deployment in app.deployments.values())]
            raise EvaluationError(f"the engines did not start: {' '.join(filter(None, reasons))}")
        time.sleep(0.5)
    raise EvaluationError(f"the engines were not up after {seconds:g} s")


def stop_fleet(fleet: str = TARGET) -> None:
    """Ends a fleet's engines, and nothing else that Ray Serve may run."""
    from ray import serve

    serve.delete(app_name(fleet))
