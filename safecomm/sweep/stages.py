"""The stages of a trial.

Each stage reads the output of earlier ones. Finished stages are reused from the store.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from safecomm.data.rows import Prompt
from safecomm.defenses import Realignment
from safecomm.defenses.adapter import Adapter
from safecomm.defenses.alignment import Profile, profile
from safecomm.defenses.moments import MOST_EXAMPLES, Moments, input_moments
from safecomm.defenses.registry import defense_of
from safecomm.judging.measure import Measurement, Subject, measure
from safecomm.judging.model_judge import Panel
from safecomm.search.arms import Chain, Trial, realignments, training_steps
from safecomm.search.equivalence import needs_profile
from safecomm.search.fine_tunes import SAFE_ADAPTER
from safecomm.search.profile_cache import ProfileCache
from safecomm.search.stopping_rule import first
from safecomm.serving.models import ModelFolder
from safecomm.serving.protocol import EvaluationProtocol
from safecomm.serving.stream import Count, uncounted
from safecomm.spec import Sweep
from safecomm.storage.names import MODULES, ROWS
from safecomm.storage.own_code import is_dotted, source_digest
from safecomm.storage.store import Store, digest, local_copy, write_json
from safecomm.storage.versions import version
from safecomm.sweep.data import SAFETY, SweepData
from safecomm.sweep.training import FIRST, Course, Training, key_of


@dataclass(frozen=True)
class StageFolders:
    """The folders of the stages that created an adapter."""

    finetune: Path
    adapter: Path
    """The final adapter: from the last defense, or from the fine-tune if there is none."""
    profile: Path | None = None
    """The last alignment profile, or None if none was needed."""


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

    @property
    def training(self) -> Training:
        """The stages that train."""
        return Training(self.sweep, self.base, self.aligned, self.store, self.on_gpu, self._data)

    def adapter(self, chain: Chain, seed: int, course: Course = FIRST) -> StageFolders:
        """Runs a chain of defenses and returns its adapter."""
        finetune = self.training.finetuned(training_steps(chain), seed, course)
        folders = StageFolders(finetune, finetune)
        for name, settings in realignments(chain):
            needs, inputs = defense_of(name).needs, {"adapter": folders.adapter}
            if "profile" in needs:
                inputs["profile"] = self.profiled(folders.adapter)
            if "safe" in needs:
                inputs["safe"] = self.training.safe_adapter(seed)
            if "moments" in needs:
                inputs["moments"] = self.moments(folders.adapter)
            adapter = self.realigned(name, settings, inputs)
            folders = StageFolders(finetune, adapter, inputs.get("profile", folders.profile))
        return folders

    def trained(self, trial: Trial) -> StageFolders:
        """Runs a shared fine-tune and, if an arm selects modules, profiles it."""
        if trial.arm == SAFE_ADAPTER:
            safe = self.training.safe_adapter(trial.seed)
            return StageFolders(safe, safe)
        finetune = self.training.finetuned(trial.chain, trial.seed)
        if not any(needs_profile(chain) for chain in self.sweep.arms.values()):
            return StageFolders(finetune, finetune)
        profile = self.profiled(finetune)
        ProfileCache(self.sweep).keep(trial.point, trial.seed, Profile.load(profile, Adapter.load(finetune)).modules)
        return StageFolders(finetune, finetune, profile)

    def profiled(self, adapter: Path) -> Path:
        """Computes the adapter's alignment profile."""

        def make(out: Path) -> None:
            profile(local_copy(self.base.path), local_copy(self.aligned.path), Adapter.load(adapter)).save(out)

        inputs: dict[str, Any] = {
            "base": self.base.identity,
            "aligned": self.aligned.identity,
            "adapter": key_of(adapter),
            "version": version("profile"),
        }
        return self.store.obtain("profile", inputs, make)

    def moments(self, adapter: Path) -> Path:
        """Runs the aligned model on the first safety examples, and measures the inputs of the adapter's modules."""
        examples = self._data.examples(SAFETY)[:MOST_EXAMPLES]
        arguments = self.sweep.model.chat_template_kwargs or {}
        given = Adapter.load(adapter)
        modules = list(given.modules)

        def make(out: Path) -> None:
            if self.sweep.is_simulated:
                Moments.uniform(given).save(out)
            else:
                input_moments(local_copy(self.aligned.path), modules, examples, arguments).save(out)

        inputs: dict[str, Any] = {
            "model": self.aligned.identity,
            "modules": modules,
            "examples": digest([asdict(example) for example in examples]),
            "chat_template_kwargs": arguments,
            "version": version("moments"),
            **({"simulated": True} if self.sweep.is_simulated else {}),
        }
        return self.store.obtain("moments", inputs, make)

    def realigned(self, name: str, settings: dict[str, Any], subject: dict[str, Path]) -> Path:
        """Applies one defense to an adapter.

        Args:
            name: the defense.
            settings: its settings, all constants.
            subject: the folders of its inputs: `adapter`, and if needed `profile`, `safe` and `moments`.
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
                "moments": lambda: Moments.load(subject["moments"]),
            }
            result = defense.checked(settings).apply(*(available[need]() for need in defense.needs))
            result.adapter.save(out)
            write_json(out / MODULES, result.modules)

        inputs: dict[str, Any] = {"defense": name, "settings": settings, "version": version("realign")}
        if is_dotted(name):
            inputs["code"] = source_digest(name)
        inputs |= {part: key_of(folder) for part, folder in subject.items()}
        inputs |= {part: getattr(self, part).identity for part in ("base", "aligned") if part in defense.needs}
        return self.store.obtain("realign", inputs, make)

    def evaluated(
        self, adapter: Path | None, split: str, share: float = 1.0, count: Count = uncounted
    ) -> tuple[Path, str]:
        """Generates and judges answers to the prompts of one split.

        Args:
            adapter: folder of the adapter; None for the aligned model itself.
            split: `search`, `report`, `release` or `tamper`.
            share: the share of the split to use; see `stopping_rule.first`.
            count: called with the number of answers so far, of questions, and of tokens.

        Returns:
            The folder with `rows.parquet`, and the adapter's content hash ("" without an adapter).
        """
        subject = Subject(adapter, Adapter.load(adapter).digest() if adapter else "")
        measurement = self.measurement(first(self.prompts(split), share))

        def make(out: Path) -> None:
            measure(measurement, {"": subject}, count=count)[""].to_parquet(out / ROWS)

        return self.store.obtain("evaluation", measurement.key(subject), make), subject.content

    def prompts(self, split: str) -> list[Prompt]:
        """Returns the prompts of a split."""
        return self._data.prompts(split)

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
        panel = Panel(evaluate.judges, evaluate.grader, evaluate.refusal_judge, evaluate.attacker, self.judge_models)
        return Measurement(self.aligned, prompts, panel, protocol, self.store)

    @property
    def _data(self) -> SweepData:
        return self.data or SweepData(self.sweep)
