"""The state that the checks of one node share: the node, the files and the running engines."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from safecomm.cluster.cleanup import app_name
from safecomm.cluster.session import CPU_SHARE
from safecomm.errors import EvaluationError
from safecomm.selftest.models import Files
from safecomm.selftest.nodes import Node
from safecomm.selftest.sizes import TARGETS, Sizes
from safecomm.selftest.work import Device, engine_error, replica_of
from safecomm.serving.engine import Answer, EngineSettings, Question
from safecomm.serving.fleet import DEPLOYMENT, Fleet, stop_fleet, wait_for_fleet
from safecomm.spec.cluster import Replicas

ENGINE = "vllm"
PATIENCE = 900.0
"""Timeout of each operation in a check, in seconds."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class Outcome:
    """The measurements of a successful check."""

    text: str = ""
    memory: int | None = None
    planned: int | None = None
    tokens_per_second: float | None = None


@dataclass
class Bench:
    """One node under test."""

    node: Node
    sizes: Sizes
    files: Files
    say: Callable[[str], None]
    device: Device | None = None
    reference: dict[str, list[Answer]] = field(default_factory=dict)
    """The answers of transformers: subject -> answers."""
    _running: list[str] = field(default_factory=list)

    @property
    def on_gpu(self) -> bool:
        """Whether the node has GPUs."""
        return self.node.gpus > 0

    @property
    def is_roomy(self) -> bool:
        """Whether two engines and two ranks can run at the same time: on a GPU each, or all on the CPU."""
        return not self.on_gpu or self.node.free_gpus >= 4

    @property
    def memory(self) -> int:
        """The device's memory in bytes."""
        assert self.device is not None, "checks that use it depend on the check `device`"
        return self.device.bytes

    @property
    def settings(self) -> EngineSettings:
        """The settings of the tuned model's engines."""
        return EngineSettings(
            max_new_tokens=self.sizes.new_tokens,
            max_model_len=self.sizes.context,
            max_lora_rank=self.sizes.merged_rank,
            lora_targets=TARGETS,
        )

    def on_node(self, work: Callable[..., Result], *arguments: Any, gpus: int = 0) -> Result:
        """Runs a function on the node, in a Ray task; a task with a GPU gets its own process.

        Raises:
            EvaluationError: if it times out.
        """
        import ray
        from ray.exceptions import GetTimeoutError

        options = {"num_cpus": CPU_SHARE, "num_gpus": gpus, "max_retries": 0, "label_selector": self.node.labels}
        task = ray.remote(**options)(work).remote(*arguments)
        try:
            result: Result = ray.get(task, timeout=PATIENCE)
        except (GetTimeoutError, KeyboardInterrupt) as error:
            ray.cancel(task, force=True)  # only while it runs: cancelling an ended task makes Ray 2.60 kill the driver
            if isinstance(error, KeyboardInterrupt):
                raise
            raise EvaluationError(f"did not end within {PATIENCE:g} s") from error
        return result

    def fleet(self, name: str, size: Replicas | None = None) -> Fleet:
        """Returns a fleet of one engine of the tuned model on the node."""
        size = (size or Replicas()).model_copy(update={"labels": self.node.labels})
        return Fleet.of(ENGINE, str(self.files.aligned), self.settings, size, self.on_gpu, name)

    def start(self, fleet: Fleet) -> None:
        """Starts the engines of a fleet unless they run already; does not wait for them."""
        if fleet.name not in self._running:
            self._running.append(fleet.name)
            fleet.start()

    def wait(self, fleet: str) -> None:
        """Waits until the engines of a fleet are up.

        Raises:
            EvaluationError: if they fail to start, with the reason, which vLLM's engine process only writes to its log.
        """
        try:
            wait_for_fleet(PATIENCE, fleet)
        except EvaluationError as error:
            raise EvaluationError(self.on_node(engine_error, app_name(fleet)) or str(error)) from error

    def ask(self, fleet: str, questions: list[Question], subjects: dict[str, Path | None]) -> dict[str, list[Answer]]:
        """Sends the questions to the engines with all adapters at once, and returns the answers of each subject."""
        from ray import serve

        replica = serve.get_deployment_handle(DEPLOYMENT, app_name(fleet)).options(method_name="answer")
        responses = {name: replica.remote(questions, str(path) if path else None) for name, path in subjects.items()}
        return {name: response.result(timeout_s=PATIENCE) for name, response in responses.items()}

    def cache_tokens(self, fleet: str) -> int:
        """Returns the capacity of an engine's KV cache in tokens."""
        from ray import serve

        replica = serve.get_deployment_handle(DEPLOYMENT, app_name(fleet)).options(method_name="cache_tokens")
        return int(replica.remote().result(timeout_s=PATIENCE))

    def wait_for_another(self, fleet: str, process: int) -> None:
        """Waits until Ray Serve has replaced a replica.

        Raises:
            EvaluationError: if it times out.
        """
        deadline = time.monotonic() + PATIENCE
        while self.on_node(replica_of, app_name(fleet)) in (0, process):
            if time.monotonic() > deadline:
                raise EvaluationError(f"Ray Serve did not replace the engine within {PATIENCE:g} s")
            time.sleep(1)
        self.wait(fleet)

    def stop(self) -> None:
        """Stops all engines that this self-test started."""
        while self._running:
            stop_fleet(self._running[-1])
            self._running.pop()
