"""The fine-tunes of a sweep. Finished ones are reused from the store."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safecomm.defenses.adapter import Adapter
from safecomm.defenses.combine import stacked
from safecomm.defenses.defense import TrainingDefense
from safecomm.defenses.registry import defense_of
from safecomm.errors import DefenseError
from safecomm.finetune.job import FinetuneJob
from safecomm.finetune.launch import finetune, training_metrics
from safecomm.search.arms import Chain
from safecomm.serving.models import ModelFolder
from safecomm.spec import Sweep
from safecomm.spec.tamper import Tampering
from safecomm.storage.names import TRAIN_DATA
from safecomm.storage.own_code import is_dotted, source_digest
from safecomm.storage.store import Store, lineage, local_copy
from safecomm.storage.versions import version
from safecomm.sweep.data import SAFETY, TASK, SweepData
from safecomm.sweep.models import given_adapter
from safecomm.sweep.training_data import TrainingData


@dataclass(frozen=True)
class Course:
    """On what a fine-tune trains, and where it starts."""

    tasks: Sequence[str] = (TASK,)
    """The names of its sets of task examples."""
    start: Path | None = None
    """The adapter that it trains further; None to train a new one on the aligned model."""
    on_top: bool = False
    """Whether it trains a new adapter on top of `start` instead."""


FIRST = Course()
"""The sweep's own task data, with a new adapter."""


@dataclass(frozen=True)
class Training:
    """The fine-tunes of one sweep, with its models, data and store."""

    sweep: Sweep
    base: ModelFolder
    aligned: ModelFolder
    store: Store
    on_gpu: bool
    data: SweepData

    def finetuned(self, chain: Chain, seed: int, course: Course = FIRST) -> Path:
        """Fine-tunes on the task data, or uses the adapter in `finetune.adapter`.

        Args:
            chain: the training defenses, which change the data, the hyperparameters or the loss; may be empty.
            seed: seed for mixing the data and for training.
            course: the data, and where training starts.
        """
        section = self.sweep.finetune
        if section.adapter:
            return self._given()
        steps = [(name, _training(name, settings)) for name, settings in chain]
        data = self._training_data.mixed(chain, [step for _, step in steps], seed, course.tasks)
        changes: dict[str, Any] = {key: value for _, step in steps for key, value in step.hyperparameters().items()}
        losses = [
            (name, settings, source_digest(name) if is_dotted(name) else "")
            for (name, settings), (_, step) in zip(chain, steps, strict=True)
            if step.has_loss
        ]
        changes |= {"losses": tuple(losses)} if losses else {}
        given = None if course.start else self._start(steps)
        start, on_top = course.start or given, course.on_top or given is not None
        trained = self._train(data, seed, start, **changes, **({"on_top": True} if on_top else {}))
        adapter = self._stacked(start, trained) if start and on_top else trained
        for step in (step for _, step in steps if step.has_patch()):
            adapter = self._patched(adapter, step, seed, changes.get("learning_rate", section.learning_rate))
        return adapter

    def safe_adapter(self, seed: int) -> Path:
        """Fine-tunes on the safety data only, for SafeMERGE."""
        section = self.sweep.finetune.safe_adapter
        assert section is not None, "the spec rejects safe_merge without finetune.safe_adapter"
        data = self._training_data.safe(seed)
        return self._train(data, seed, epochs=section.epochs, learning_rate=section.learning_rate)

    def tampered(self, adapter: Path, curve: Tampering, seed: int, learning_rate: float | None = None) -> Path:
        """Trains an adapter further; the folder has an adapter for each of `tamper.steps`, named by its number.

        Args:
            adapter: the released adapter.
            curve: the training set; with both, the adapter is first trained on the harmless one.
            seed: seed for mixing the data and for training.
            learning_rate: one of those that `tamper` lists; None for its only one.
        """
        section = self.sweep.tamper
        assert section is not None, "only a sweep with the section has tamper trials"
        own, start = learning_rate or section.learning_rates[0], adapter
        if curve == "data_then_harmful":
            curve, start = "harmful", self.tampered(adapter, "data", seed, learning_rate) / str(section.steps[-1])
        return self._train(
            self._training_data.tampering(curve, seed),
            seed,
            start=start,
            steps=section.steps[-1],
            kept_steps=tuple(section.steps),
            schedule="constant",
            warmup=0.0,
            learning_rate=own or self.sweep.finetune.learning_rate,
        )

    def seconds(self, folder: Path) -> dict[str, float]:
        """Returns the fine-tunes that made an adapter: key -> time of their training steps, times their ranks.

        The start of the processes is not included.
        """
        made = lineage(folder)
        if made["stage"] == "stacked":
            return self.seconds(local_copy(self.store.folder("finetune", made["inputs"]["above"])))
        metrics = training_metrics(folder)
        own = {key_of(folder): float(metrics["seconds"] * metrics["ranks"])}
        patched = made["inputs"].get("after")
        before = patched and (self.store.find("finetune", patched) or self.store.find("stacked", patched))
        return own | (self.seconds(before) if before else {})

    def _start(self, steps: Sequence[tuple[str, TrainingDefense]]) -> Path | None:
        """Returns the adapter that a defense has the fine-tune start from; None without one."""
        name, step = next(((name, step) for name, step in steps if step.has_start), ("", None))
        if step is None:
            return None
        targets = sorted(self.sweep.finetune.lora.targets)

        def make(out: Path) -> None:
            step.start(local_copy(self.base.path), local_copy(self.aligned.path), targets).save(out)

        inputs: dict[str, Any] = {"defense": name, "settings": step.constants(), "targets": targets}
        inputs |= {"base": self.base.identity, "aligned": self.aligned.identity, "version": version("start")}
        if is_dotted(name):
            inputs["code"] = source_digest(name)
        return self.store.obtain("start", inputs, make)

    def _patched(self, adapter: Path, step: TrainingDefense, seed: int, learning_rate: float) -> Path:
        """Trains an adapter further as a defense asks for.

        Raises:
            DefenseError: if the defense gives no examples.
        """
        safety = self.data.examples(SAFETY) if "safety_data" in step.needs else ()
        patch = step.patch(safety, seed)
        if not patch.examples or patch.steps < 1:
            raise DefenseError(f"{step.name}: its patch has no examples or no steps; give at least one of each")
        return self._train(
            self._training_data.patching(patch.examples, self.sweep.finetune.batch_size, seed),
            seed,
            start=adapter,
            patches=True,
            steps=patch.steps,
            schedule="constant",
            warmup=0.0,
            learning_rate=patch.learning_rate or learning_rate,
        )

    def _stacked(self, below: Path, above: Path) -> Path:
        """Returns one adapter that has the effect of two, one trained on top of the other."""

        def make(out: Path) -> None:
            stacked(Adapter.load(below), Adapter.load(above)).save(out)

        inputs = {"below": key_of(below), "above": key_of(above), "version": version("finetune")}
        return self.store.obtain("stacked", inputs, make)

    def _given(self) -> Path:
        adapter = given_adapter(self.sweep.finetune)
        inputs = {"given": adapter.digest(), "version": version("finetune")}
        return self.store.obtain("finetune", inputs, adapter.save)

    @property
    def _training_data(self) -> TrainingData:
        return TrainingData(self.data, self.store)

    def _train(self, data: Path, seed: int, start: Path | None = None, patches: bool = False, **changes: Any) -> Path:
        """Fine-tunes within a trial, and reports the progress to Ray Tune.

        Args:
            data: the folder of the training set.
            seed: the seed of the training.
            start: the adapter to train further, or on top of; None for a new one.
            patches: whether `start` is of the same fine-tune, whose time counts.
            changes: fields of the job.
        """
        workers = self.sweep.cluster.finetune
        job = FinetuneJob.of(
            self.sweep.finetune,
            model=self.aligned.path,
            data=data / TRAIN_DATA,
            workers=workers.workers,
            seed=seed,
            start=str(start or ""),
            chat_template_kwargs=self.sweep.model.chat_template_kwargs or None,
            **changes,
        )

        def make(out: Path) -> None:
            from ray.tune.integration.ray_train import TuneReportCallback

            finetune(
                job,
                out,
                self.store,
                on_gpu=self.on_gpu,
                callbacks=[TuneReportCallback()],
                labels=workers.labels,
                spread=workers.spread,
                simulation=self.sweep.speed,
            )

        inputs = {
            "model": self.aligned.identity,
            "data": key_of(data),
            "version": version("finetune"),
            **job.hyperparameters,
            **({"loss": version("loss")} if job.losses else {}),
            **({"start": Adapter.load(start).digest()} if start else {}),
            **({"after": key_of(start)} if start and patches else {}),
            **({"simulated": True} if self.sweep.is_simulated else {}),
        }
        return self.store.obtain("finetune", inputs, make)


def _training(name: str, settings: dict[str, Any]) -> TrainingDefense:
    step = defense_of(name).checked(settings)
    assert isinstance(step, TrainingDefense), "the chain of a fine-tune has only training defenses"
    return step


def key_of(folder: Path) -> str:
    """Returns the store key of a stage's folder."""
    key: str = lineage(folder)["key"]
    return key
