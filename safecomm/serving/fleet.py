"""Fleets: Ray Serve deployments of engines that live as long as the sweep and are shared by all its trials."""

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from safecomm.cluster.cleanup import APPS, app_name
from safecomm.cluster.session import CPU_SHARE
from safecomm.errors import EvaluationError
from safecomm.serving.canary import Canary
from safecomm.serving.engine import Answer, Engine, EngineSettings, Question, failed
from safecomm.serving.orphans import end_with_this_process
from safecomm.spec.cluster import Replicas
from safecomm.storage.store import local_copy

TARGET = "target"
"""The fleet of the model under test; judges have separate fleets."""
DEPLOYMENT = "engine"
CHUNK = 32
"""Questions per request: enough to amortize Serve's overhead, few enough to balance the replicas."""
QUESTIONS_ON_GPU = 2048
"""Questions in flight per replica on a GPU: twice the sequences that vLLM runs at once on an H100 (1,024), so that
chunks of which only the slowest answer is missing leave the engine enough to do."""
QUESTIONS_ON_CPU = 512
"""Twice vLLM's sequences on a CPU."""
IDLE_SECONDS = 60.0
"""Idle time after which an engine with `scale_to_zero` is shut down."""


def build_engine(name: str, model: str, settings: EngineSettings) -> Engine:
    """Creates the engine named by a sweep's `evaluate.engine`, with the model loaded."""
    if name == "vllm":
        from safecomm.serving.vllm_engine import VllmEngine

        return VllmEngine(model, settings)
    if name == "simulated":
        from safecomm.serving.simulated_engine import SimulatedEngine

        return SimulatedEngine(settings)
    from safecomm.serving.transformers_engine import TransformersEngine

    return TransformersEngine(model, settings)


class Replica:
    """One engine behind Ray Serve."""

    def __init__(self, engine: str, model: str, settings: dict[str, Any]):
        end_with_this_process()
        self._engine = build_engine(engine, str(local_copy(Path(model))), EngineSettings(**settings))
        self._canary = Canary(self._engine)

    async def answer(self, questions: list[Question], adapter: str | None) -> list[Answer]:
        """Answers a chunk of questions, after checking that the engine applies the adapter."""
        if adapter and not Path(adapter).exists():
            adapter = str(await asyncio.to_thread(local_copy, Path(adapter)))
        if adapter and (reason := await self._check(adapter)):
            return [failed(reason)] * len(questions)
        return await self._engine.answer(questions, adapter)

    async def _check(self, adapter: str) -> str:
        try:
            return await self._canary.check(adapter)
        except EvaluationError as error:  # the next chunk has the adapter checked again
            return str(error)

    async def check_health(self) -> None:
        """Raises if the engine is dead, so that Ray Serve replaces the replica."""
        await self._engine.check_health()

    async def cache_tokens(self) -> int:
        """Returns how many tokens the engine's KV cache has room for."""
        return self._engine.cache_tokens


@dataclass(frozen=True)
class Fleet:
    """The engines that serve one model: what they load and how many there are."""

    engine: str
    model: str
    settings: EngineSettings
    replicas: int
    name: str = TARGET
    scale_to_zero: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    """Required labels of the nodes that the engines run on."""

    @classmethod
    def of(
        cls, engine: str, model: str, settings: EngineSettings, size: Replicas, on_gpu: bool, name: str = TARGET
    ) -> "Fleet":
        """Returns a fleet with the size from a sweep."""
        placed = replace(
            settings,
            on_gpu=on_gpu,
            tensor_parallel=size.tensor_parallel,
            pipeline_parallel=size.pipeline_parallel,
        )
        return cls(engine, model, placed, size.replicas, name, size.scale_to_zero, size.labels)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Runs the engines and stops them on exit; call `wait_for_fleet` before using them."""
        self.start()
        try:
            yield
        finally:
            stop_fleet(self.name)

    def start(self) -> None:
        """Deploys the engines without waiting for them; see `wait_for_fleet`."""
        from ray import serve

        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        deployment = serve.deployment(Replica, name=DEPLOYMENT).options(**self.options())
        serve.start(proxy_location="Disabled")
        app = serve.RunTarget(
            deployment.bind(self.engine, self.model, asdict(self.settings)), name=app_name(self.name), route_prefix=None
        )
        serve.run_many([app], wait_for_applications_running=False)

    def options(self) -> dict[str, Any]:
        """Returns the options of the Ray Serve deployment."""
        at_once = chunks_in_flight(self.settings.on_gpu)
        return {"max_ongoing_requests": at_once, **self._number(), **self._resources()}

    def _number(self) -> dict[str, Any]:
        """Returns the replica options: a fixed number or, with `scale_to_zero`, autoscaling."""
        if not self.scale_to_zero:
            return {"num_replicas": self.replicas}
        limits = {"min_replicas": 0, "initial_replicas": 0, "max_replicas": self.replicas}
        pace = {"target_ongoing_requests": 1, "upscale_delay_s": 0, "downscale_delay_s": IDLE_SECONDS}
        return {"autoscaling_config": limits | pace}

    def _resources(self) -> dict[str, Any]:
        """Returns the resources of one replica; with several GPUs, each worker gets a placement-group bundle."""
        parallel = self.settings.gpus
        if self.settings.on_gpu and parallel > 1 and self.engine != "transformers":
            bundles = [{"CPU": CPU_SHARE}] + [{"GPU": 1.0, "CPU": CPU_SHARE}] * parallel
            # Tensor parallelism exchanges activations in every layer, so its workers belong on one node.
            strategy = "STRICT_PACK" if self.settings.pipeline_parallel == 1 else "PACK"
            return {
                "placement_group_bundles": bundles,
                "placement_group_strategy": strategy,
                "placement_group_bundle_label_selector": [dict(self.labels)],
                "ray_actor_options": {"num_cpus": CPU_SHARE},
            }
        gpus = parallel if self.settings.on_gpu else 0
        return {"ray_actor_options": {"num_cpus": CPU_SHARE, "num_gpus": gpus, "label_selector": dict(self.labels)}}


def chunks_in_flight(on_gpu: bool, replicas: int = 1) -> int:
    """Returns the requests that replicas take at a time."""
    return replicas * (QUESTIONS_ON_GPU if on_gpu else QUESTIONS_ON_CPU) // CHUNK


def fleet_capacity(fleet: str) -> int:
    """Returns the requests that a fleet takes at a time; one replica's if none runs, as with `scale_to_zero`."""
    import ray
    from ray import serve

    app = serve.status().applications.get(app_name(fleet))
    replicas = sum(app.deployments[DEPLOYMENT].replica_states.values()) if app and app.deployments else 1
    return chunks_in_flight(ray.cluster_resources().get("GPU", 0) > 0, max(1, replicas))


def replicas_of_fleets() -> dict[str, tuple[int, int]]:
    """Returns this job's fleets: name -> replicas that run, and that exist; nothing without Ray Serve."""
    import ray
    from ray import serve
    from ray.serve.schema import ReplicaState

    from safecomm.cluster.ray_internals import serve_is_running

    if not (ray.is_initialized() and serve_is_running()):  # `get_actor` would start Ray, `serve.status` Ray Serve
        return {}
    found, of_this_job = {}, app_name("").removeprefix(APPS)
    for name, app in serve.status().applications.items():
        if name.startswith(APPS) and name.endswith(of_this_job) and DEPLOYMENT in app.deployments:
            states = app.deployments[DEPLOYMENT].replica_states
            fleet = name.removeprefix(APPS).removesuffix(of_this_job)
            found[fleet] = (states.get(ReplicaState.RUNNING, 0), sum(states.values()))
    return found


def wait_for_fleet(seconds: float, fleet: str = TARGET) -> None:
    """Waits until the engines are running.

    Args:
        seconds: how long, see `startup.fleet_seconds`.
        fleet: the fleet's name.

    Raises:
        EvaluationError: if they fail to start (with Ray Serve's reason) or time out.
    """
    from ray import serve
    from ray.serve.schema import ApplicationStatus

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        app = serve.status().applications.get(app_name(fleet))
        if app and app.status == ApplicationStatus.RUNNING:
            return
        # UNHEALTHY is not fatal: Ray Serve replaces an engine that died.
        if app and app.status == ApplicationStatus.DEPLOY_FAILED:
            reasons = [app.message, *(deployment.message for deployment in app.deployments.values())]
            raise EvaluationError(f"the engines did not start: {' '.join(filter(None, reasons))}")
        time.sleep(0.5)
    raise EvaluationError(f"the engines were not running after {seconds:g} s")


def stop_fleet(fleet: str = TARGET) -> None:
    """Stops a fleet's engines and no other Ray Serve application."""
    from ray import serve

    serve.delete(app_name(fleet))
