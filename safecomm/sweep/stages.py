"""The stages of a trial.

Each stage reads the output of earlier ones. Finished stages are reused from the store.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from safecomm.data.rows import Prompt
from safecomm.defenses import Realignment
from safecomm.defenses.adapter import Adapter
from safecomm.defenses.alignment import Profile, profile
from safecomm.defenses.combine import stacked
from safecomm.defenses.defense import TrainingDefense
from safecomm.defenses.registry import defense_of
from safecomm.finetune.job import FinetuneJob
from safecomm.finetune.launch import finetune, training_metrics
from safecomm.judging.measure import Measurement, Subject, measure
from safecomm.judging.model_judge import Panel
from safecomm.search.arms import Chain, Trial, realignments, training_steps
from safecomm.search.equivalence import needs_profile
from safecomm.search.fine_tunes import SAFE_ADAPTER
from safecomm.search.profile_cache import ProfileCache
from safecomm.search.stopping_rule import first
from safecomm.serving.models import ModelFolder
from safecomm.serving.protocol import EvaluationProtocol
from safecomm.spec import Sweep
from safecomm.spec.tamper import Tampering
from safecomm.storage.names import MODULES, ROWS, TRAIN_DATA
from safecomm.storage.own_code import is_dotted, source_digest
from safecomm.storage.store import Store, lineage, local_copy, write_json
from safecomm.storage.versions import version
from safecomm.sweep.data import TASK, SweepData
from safecomm.sweep.models import given_adapter
from safecomm.sweep.training_data import TrainingData


@dataclass(frozen=True)
class StageFolders:
    """The folders of the stages that created an adapter."""

    finetune: Path
    adapter: Path
    """The final adapter: from the last defense, or from the fine-tune if there is none."""
    profile: Path | None = None
    """The last alignment profile, or None if none was needed."""


@dataclass(frozen=True)
class Course:
    """On what a fine-tune trains, and where it starts."""

    tasks: Sequence[str] = (TASK,)
    """The names of its sets of task examples."""
    start: Path | None = None
    """The adapter that it trains further; None to train a new one on the aligned model."""
    on_top: bool = False
    """Whether it trains a new adapter on top of `start` instead."""


@dataclass(frozen=True)
class Stages:
    """The stages of one sweep, with its models and its store."""

    sweep: Sweep
    base: ModelFolder
    aligned: ModelFolder
    store: Store
    on_gpu: bool
    judge_models: Mapping[str, ModelFolder] = field(default_factory=dict)
    """Name -> model of the judges for which the sweep runs engines."""
    data: SweepData | None = None
    """The data that the driver stored; None to read the sources."""

    def adapter(self, chain: Chain, seed: int, course: Course = Course()) -> StageFolders:
        """Runs a chain of defenses and returns its adapter."""
        finetune = self.finetuned(training_steps(chain), seed, course)
        folders = StageFolders(finetune, finetune)
        for name, settings in realignments(chain):
            needs, inputs = defense_of(name).needs, {"adapter": folders.adapter}
            if "profile" in needs:
                inputs["profile"] = self.profiled(folders.adapter)
            if "safe" in needs:
                inputs["safe"] = self.safe_adapter(seed)
            adapter = self.realigned(name, settings, inputs)
            folders = StageFolders(finetune, adapter, inputs.get("profile", folders.profile))
        return folders

    def trained(self, trial: Trial) -> StageFolders:
        """Runs a shared fine-tune and, if an arm selects modules, profiles it."""
        if trial.arm == SAFE_ADAPTER:
            safe = self.safe_adapter(trial.seed)
            return StageFolders(safe, safe)
        finetune = self.finetuned(trial.chain, trial.seed)
        if not any(needs_profile(chain) for chain in self.sweep.arms.values()):
            return StageFolders(finetune, finetune)
        profile = self.profiled(finetune)
        ProfileCache(self.sweep).keep(trial.point, trial.seed, Profile.load(profile, Adapter.load(finetune)).modules)
        return StageFolders(finetune, finetune, profile)

    def finetuned(self, chain: Chain, seed: int, course: Course = Course()) -> Path:
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
        return self._stacked(start, trained) if start and on_top else trained

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

    def _stacked(self, below: Path, above: Path) -> Path:
        """Returns one adapter that has the effect of two, one trained on top of the other."""

        def make(out: Path) -> None:
            stacked(Adapter.load(below), Adapter.load(above)).save(out)

        inputs = {"below": _key(below), "above": _key(above), "version": version("finetune")}
        return self.store.obtain("stacked", inputs, make)

    def safe_adapter(self, seed: int) -> Path:
        """Fine-tunes on the safety data only, for SafeMERGE."""
        section = self.sweep.finetune.safe_adapter
        assert section is not None, "the spec rejects safe_merge without finetune.safe_adapter"
        data = self._training_data.safe(seed)
        return self._train(data, seed, epochs=section.epochs, learning_rate=section.learning_rate)

    def tampered(self, adapter: Path, curve: Tampering, seed: int) -> Path:
        """Trains an adapter further; the folder has an adapter for each of `tamper.steps`, named by its number."""
        section = self.sweep.tamper
        assert section is not None, "only a sweep with the section has tamper trials"
        return self._train(
            self._training_data.tampering(curve, seed),
            seed,
            start=adapter,
            steps=section.steps[-1],
            kept_steps=tuple(section.steps),
            schedule="constant",
            warmup=0.0,
            learning_rate=section.learning_rate or self.sweep.finetune.learning_rate,
        )

    def profiled(self, adapter: Path) -> Path:
        """Computes the adapter's alignment profile."""

        def make(out: Path) -> None:
            profile(local_copy(self.base.path), local_copy(self.aligned.path), Adapter.load(adapter)).save(out)

        inputs: dict[str, Any] = {
            "base": self.base.identity,
            "aligned": self.aligned.identity,
            "adapter": _key(adapter),
            "version": version("profile"),
        }
        return self.store.obtain("profile", inputs, make)

    def realigned(self, name: str, settings: dict[str, Any], subject: dict[str, Path]) -> Path:
        """Applies one defense to an adapter.

        Args:
            name: the defense.
            settings: its settings, all constants.
            subject: the folders of its inputs: `adapter`, and if needed `profile` and `safe`.
        """
        defense = defense_of(name)
        assert issubclass(defense, Realignment), "training defenses are not realignments"

        def make(out: Path) -> None:
            adapter = Adapter.load(subject["adapter"])
            available: dict[str, Callable[[], Any]] = {
                "adapter": lambda: adapter,
                "profile": lambda: Profile.load(subject["profile"], adapter),
                "safe": lambda: Adapter.load(subject["safe"]),
                "base": lambda: local_copy(self.base.path),
                "aligned": lambda: local_copy(self.aligned.path),
            }
            result = defense.checked(settings).apply(*(available[need]() for need in defense.needs))
            result.adapter.save(out)
            write_json(out / MODULES, result.modules)

        inputs: dict[str, Any] = {"defense": name, "settings": settings, "version": version("realign")}
        if is_dotted(name):
            inputs["code"] = source_digest(name)
        inputs |= {part: _key(folder) for part, folder in subject.items()}
        inputs |= {part: getattr(self, part).identity for part in ("base", "aligned") if part in defense.needs}
        return self.store.obtain("realign", inputs, make)

    def evaluated(self, adapter: Path | None, split: str, share: float = 1.0) -> tuple[Path, str]:
        """Generates and judges answers to the prompts of one split.

        Args:
            adapter: folder of the adapter; None for the aligned model itself.
            split: `search`, `report`, `release` or `tamper`.
            share: the share of the split to use; see `stopping_rule.first`.

        Returns:
            The folder with `rows.parquet`, and the adapter's content hash ("" without an adapter).
        """
        subject = Subject(adapter, Adapter.load(adapter).digest() if adapter else "")
        measurement = self.measurement(first(self.prompts(split), share))

        def make(out: Path) -> None:
            measure(measurement, {"": subject})[""].to_parquet(out / ROWS)

        return self.store.obtain("evaluation", measurement.key(subject), make), subject.content

    def prompts(self, split: str) -> list[Prompt]:
        """Returns the prompts of a split."""
        return self._data.prompts(split)

    def training_seconds(self, folder: Path) -> float:
        """Returns the time of an adapter's training steps, times their ranks; without the start of the processes."""
        made = lineage(folder)
        if made["stage"] == "stacked":
            folder = local_copy(self.store.folder("finetune", made["inputs"]["above"]))
        metrics = training_metrics(folder)
        return float(metrics["seconds"] * metrics["ranks"])

    @property
    def judges(self) -> list[str]:
        """The judges' names, the deciding one first."""
        return [judge.name for judge in self.sweep.evaluate.judges]

    def measurement(self, prompts: Sequence[Prompt] = ()) -> Measurement:
        """Returns how the sweep has prompts answered and judged."""
        evaluate, model = self.sweep.evaluate, self.sweep.model
        of_the_model: dict[str, Any] = {
            "system_prompt": model.system_prompt,
            "chat_template_kwargs": model.chat_template_kwargs,
        }
        names = {one.name for one in fields(EvaluationProtocol)} - of_the_model.keys()
        protocol = EvaluationProtocol(**of_the_model, **{name: getattr(evaluate, name) for name in names})
        panel = Panel(evaluate.judges, evaluate.grader, evaluate.refusal_judge, self.judge_models)
        return Measurement(self.aligned, prompts, panel, protocol, self.store)

    @property
    def _data(self) -> SweepData:
        return self.data or SweepData(self.sweep)

    @property
    def _training_data(self) -> TrainingData:
        return TrainingData(self._data, self.store)

    def _given(self) -> Path:
        adapter = given_adapter(self.sweep.finetune)
        inputs = {"given": adapter.digest(), "version": version("finetune")}
        return self.store.obtain("finetune", inputs, adapter.save)

    def _train(self, data: Path, seed: int, start: Path | None = None, **changes: Any) -> Path:
        """Fine-tunes within a trial, from a new adapter or a given one, and reports the progress to Ray Tune."""
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
            "data": _key(data),
            "version": version("finetune"),
            **job.hyperparameters,
            **({"loss": version("loss")} if job.losses else {}),
            **({"start": Adapter.load(start).digest()} if start else {}),
            **({"simulated": True} if self.sweep.is_simulated else {}),
        }
        return self.store.obtain("finetune", inputs, make)


def _training(name: str, settings: dict[str, Any]) -> TrainingDefense:
    step = defense_of(name).checked(settings)
    assert isinstance(step, TrainingDefense), "the chain of a fine-tune has only training defenses"
    return step


def _key(folder: Path) -> str:
    key: str = lineage(folder)["key"]
    return key
