"""What the checks of one node share: where they run, what they made, and the engines that run."""

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
from safecomm.spec.sweep import Replicas

ENGINE = "vllm"
PATIENCE = 900.0
"""Seconds after which a check has failed that does not come to an end."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class Outcome:
    """What a successful check measured."""

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
    """What transformers answers: adapter -> answers."""
    _running: list[str] = field(default_factory=list)

    @property
    def on_gpu(self) -> bool:
        """Whether the node has GPUs."""
        return self.node.gpus > 0

    @property
    def is_roomy(self) -> bool:
        """Whether two engines and two ranks can run at the same time: each on a GPU, or all on the processor."""
        return not self.on_gpu or self.node.free_gpus >= 4

    @property
    def memory(self) -> int:
        """Bytes of the device's memory."""
        assert self.device is not None, "the checks that ask for it need the device's"
        return self.device.bytes

    @property
    def settings(self) -> EngineSettings:
        """What the engines of the tuned model need to know."""
        return EngineSettings(
            max_new_tokens=self.sizes.new_tokens,
            max_model_len=self.sizes.context,
            max_lora_rank=self.sizes.merged_rank,
            lora_targets=TARGETS,
        )

    def on_node(self, work: Callable[..., Result], *arguments: Any, gpus: int = 0) -> Result:
        """Runs a function on the node, in a Ray task; one with a GPU has a process of its own.

        Raises:
            EvaluationError: if it does not come to an end.
        """
        import ray
        from ray.exceptions import GetTimeoutError

        options = {"num_cpus": CPU_SHARE, "num_gpus": gpus, "max_retries": 0, "label_selector": self.node.labels}
        task = ray.remote(**options)(work).remote(*arguments)
        try:
            found: Result = ray.get(task, timeout=PATIENCE)
        except (GetTimeoutError, KeyboardInterrupt) as error:
            ray.cancel(task, force=True)  # not where it has ended: Ray 2.60 then kills the driver
            if isinstance(error, KeyboardInterrupt):
                raise
            raise EvaluationError(f"did not come to an end within {PATIENCE:g} s") from error
        return found

    def fleet(self, name: str, size: Replicas | None = None) -> Fleet:
        """Returns one engine of the tuned model, on the node."""
        size = (size or Replicas()).model_copy(update={"labels": self.node.labels})
        return Fleet.of(ENGINE, str(self.files.aligned), self.settings, size, self.on_gpu, name)

    def start(self, fleet: Fleet) -> None:
        """Starts engines that do not run yet, and returns at once."""
        if fleet.name not in self._running:
            self._running.append(fleet.name)
            fleet.start()

    def wait(self, fleet: str) -> None:
        """Returns when engines that were started are up.

        Raises:
            EvaluationError: with the reason, which vLLM's engine process writes into its log alone.
        """
        try:
            wait_for_fleet(PATIENCE, fleet)
        except EvaluationError as error:
            raise EvaluationError(self.on_node(engine_error, app_name(fleet)) or str(error)) from error

    def ask(self, fleet: str, questions: list[Question], subjects: dict[str, Path | None]) -> dict[str, list[Answer]]:
        """Has engines answer with all adapters at once."""
        from ray import serve

        replica = serve.get_deployment_handle(DEPLOYMENT, app_name(fleet)).options(method_name="answer")
        asked = {name: replica.remote(questions, str(path) if path else None) for name, path in subjects.items()}
        return {name: response.result(timeout_s=PATIENCE) for name, response in asked.items()}

    def cache_tokens(self, fleet: str) -> int:
        """Returns how many tokens the KV cache of an engine has room for."""
        from ray import serve

        replica = serve.get_deployment_handle(DEPLOYMENT, app_name(fleet)).options(method_name="cache_tokens")
        return int(replica.remote().result(timeout_s=PATIENCE))

    def wait_for_another(self, fleet: str, process: int) -> None:
        """Returns when Ray Serve has put another replica in the place of one.

        Raises:
            EvaluationError: if it does not.
        """
        deadline = time.monotonic() + PATIENCE
        while self.on_node(replica_of, app_name(fleet)) in (0, process):
            if time.monotonic() > deadline:
                raise EvaluationError(f"Ray Serve did not replace the engine within {PATIENCE:g} s")
            time.sleep(1)
        self.wait(fleet)

    def stop(self) -> None:
        """Ends all engines that this test started."""
        while self._running:
            stop_fleet(self._running[-1])
            self._running.pop()
