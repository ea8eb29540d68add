"""The stages that a trial is made of.

Each reads what the ones before it wrote and is found in the store when it was made before.
"""

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from safecomm.data.mixing import mix
from safecomm.data.registry import load_examples, load_prompts
from safecomm.data.rows import Example, Kind, Prompt
from safecomm.defenses import DEFENSES
from safecomm.defenses.adapter import Adapter
from safecomm.defenses.alignment import Profile, profile
from safecomm.errors import DataError, ModelError
from safecomm.evaluate.fleet import wait_for_fleet
from safecomm.evaluate.model_judge import Panel
from safecomm.evaluate.responses import Questions, Responses
from safecomm.evaluate.stream import Request, stream
from safecomm.evaluate.suite import Protocol
from safecomm.evaluate.verdicts import ROWS, check_gradable, judged
from safecomm.finetune.job import FinetuneJob
from safecomm.finetune.launch import finetune
from safecomm.models import ModelFolder
from safecomm.selection import module_type
from safecomm.spec import DatasetRef, Finetune, Sweep
from safecomm.store import Store, digest, lineage, write_json
from safecomm.sweep.arms import Chain, data_ratio, realignments

MODULES = "modules.json"
VERSION = 4
"""Raise it when a change to a stage changes what it makes of the same inputs."""


@dataclass(frozen=True)
class Stages:
    """The stages of one sweep, on its models and its store."""

    sweep: Sweep
    base: ModelFolder
    aligned: ModelFolder
    store: Store
    on_gpu: bool
    judge_models: Mapping[str, ModelFolder] = field(default_factory=dict)
    """The models of the judges that run on engines of ours."""

    def adapter(self, chain: Chain, seed: int, callbacks: Sequence[Any] = ()) -> dict[str, Path]:
        """Carries out the chain up to its adapter.

        Returns:
            The folders of the stages: `finetune`, `adapter` (the last), and `profile` where one was computed.
        """
        folders = {"finetune": self.finetuned(data_ratio(chain), seed, callbacks)}
        folders["adapter"] = folders["finetune"]
        for name, settings in realignments(chain):
            needs, subject = DEFENSES[name].needs, {"adapter": folders["adapter"]}
            if "profile" in needs:
                subject["profile"] = folders["profile"] = self.profiled(folders["adapter"])
            if "safe" in needs:
                subject["safe"] = self.safe_adapter(seed, callbacks)
            folders["adapter"] = self.realigned(name, settings, subject)
        return folders

    def finetuned(self, ratio: float, seed: int, callbacks: Sequence[Any] = ()) -> Path:
        """Fine-tunes on the telecom data with safety examples mixed in at a ratio, or takes the given adapter."""
        section = self.sweep.finetune
        if section.adapter:
            return self._given()
        telecom = [example for ref in section.data for example in _examples(ref)]
        safety = _examples(section.safety_data) if section.safety_data and ratio else []
        mixture = mix(telecom, list(safety), ratio, seed)
        drawn = {"telecom": mixture.telecom, "safety": mixture.safety, "ratio": ratio, "seed": seed}
        return self._train(mixture.examples, drawn, seed, callbacks)

    def safe_adapter(self, seed: int, callbacks: Sequence[Any] = ()) -> Path:
        """Fine-tunes on the safety data alone, for SafeMERGE."""
        section = self.sweep.finetune.safe_adapter
        assert section is not None, "the spec refuses safe_merge without finetune.safe_adapter"
        examples = list(_examples(section.data))
        drawn = {"telecom": 0, "safety": len(examples), "seed": seed}
        return self._train(examples, drawn, seed, callbacks, epochs=section.epochs, learning_rate=section.learning_rate)

    def profiled(self, adapter: Path) -> Path:
        """Computes the adapter's alignment profile."""

        def make(out: Path) -> None:
            profile(self.base.path, self.aligned.path, Adapter.load(adapter)).save(out)

        inputs: dict[str, Any] = {
            "base": self.base.identity,
            "aligned": self.aligned.identity,
            "adapter": _key(adapter),
            "version": VERSION,
        }
        return self.store.obtain("profile", inputs, make)

    def realigned(self, name: str, settings: dict[str, Any], subject: dict[str, Path]) -> Path:
        """Applies one defense to an adapter.

        Args:
            name: the defense.
            settings: its settings, as constants.
            subject: the folders of what it works on: `adapter`, and where it needs them, `profile` and `safe`.
        """
        defense = DEFENSES[name]

        def make(out: Path) -> None:
            adapter = Adapter.load(subject["adapter"])
            have: dict[str, Callable[[], Any]] = {
                "adapter": lambda: adapter,
                "profile": lambda: Profile.load(subject["profile"], adapter),
                "safe": lambda: Adapter.load(subject["safe"]),
                "base": lambda: self.base.path,
                "aligned": lambda: self.aligned.path,
            }
            made = defense.apply(*(have[need]() for need in defense.needs), **settings)
            made.adapter.save(out)
            write_json(out / MODULES, made.modules)

        inputs: dict[str, Any] = {"defense": name, "settings": settings, "version": VERSION}
        inputs |= {part: _key(folder) for part, folder in subject.items()}
        inputs |= {part: getattr(self, part).identity for part in ("base", "aligned") if part in defense.needs}
        return self.store.obtain("realign", inputs, make)

    def evaluated(self, adapter: Path | None, split: str) -> tuple[Path, str]:
        """Has the suite's prompts of one split answered and judged.

        Returns:
            The folder of `rows.parquet`, and the adapter's content hash ("" without an adapter).
        """
        evaluate = self.sweep.evaluate
        prompts = tuple(prompt for prompt in suite(self.sweep) if prompt.side == split)
        content = Adapter.load(adapter).digest() if adapter else ""

        protocol = Protocol(
            system_prompt=self.sweep.model.system_prompt,
            **{one.name: getattr(evaluate, one.name) for one in fields(Protocol) if one.name != "system_prompt"},
        )
        asked = {"model": self.aligned.identity, "adapter": content, "version": VERSION, **protocol.as_key()}

        def ask(missing: Questions) -> Iterator[pd.DataFrame]:
            wait_for_fleet()
            return (rows for _, rows in stream({"": Request(missing, str(adapter) if adapter else None)}))

        def make(out: Path) -> None:
            answers = Responses(self.store, asked).of(protocol.questions(prompts), ask)
            judged(protocol.rows(prompts, answers), *panel.seated(self.store, protocol.engine)).to_parquet(out / ROWS)

        panel = Panel(evaluate.judges, evaluate.grader, self.judge_models)
        key = {
            "prompts": digest([prompt.as_row() for prompt in prompts]),
            "samples": protocol.samples,
            "judges": panel.as_key(),
        }
        return self.store.obtain("evaluation", asked | key, make), content

    @property
    def judges(self) -> list[str]:
        """The judges' names, the deciding one first."""
        return [judge.name for judge in self.sweep.evaluate.judges]

    def _given(self) -> Path:
        adapter = given_adapter(self.sweep.finetune)
        inputs = {"given": adapter.digest(), "version": VERSION}
        return self.store.obtain("finetune", inputs, adapter.save)

    def _train(
        self, examples: Sequence[Example], drawn: dict[str, Any], seed: int, callbacks: Sequence[Any], **changes: Any
    ) -> Path:
        data = self._written(examples, drawn)
        job = FinetuneJob.of(
            self.sweep.finetune,
            model=self.aligned.path,
            data=data / "train.jsonl",
            workers=self.sweep.cluster.finetune.workers,
            seed=seed,
            **changes,
        )

        def make(out: Path) -> None:
            finetune(job, out, self.store, on_gpu=self.on_gpu, callbacks=callbacks)

        inputs = {"model": self.aligned.identity, "data": _key(data), "version": VERSION, **job.hyperparameters}
        return self.store.obtain("finetune", inputs, make)

    def _written(self, examples: Sequence[Example], drawn: dict[str, Any]) -> Path:
        rows = [{"prompt": example.prompt, "response": example.response} for example in examples]

        def make(out: Path) -> None:
            with (out / "train.jsonl").open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

        return self.store.obtain("data", {"rows": digest(rows), **drawn}, make)


def suite(sweep: Sweep) -> list[Prompt]:
    """Returns all prompts that the sweep measures with."""
    return [
        prompt for kind in get_args(Kind) for ref in getattr(sweep.evaluate, kind) for prompt in _prompts(ref, kind)
    ]


def given_adapter(section: Finetune) -> Adapter:
    """Reads the adapter of `finetune.adapter`.

    Raises:
        ModelError: where it can't be used, or `finetune.lora` says otherwise than it is.
    """
    adapter = Adapter.load(str(section.adapter))
    adapter.check_trained()
    rank = max(factors.A.shape[0] for factors in adapter.modules.values())
    targets = {module_type(name) for name in adapter.modules}
    if rank > section.lora.r or targets - set(section.lora.targets):
        raise ModelError(
            f"finetune.adapter: {section.adapter} has rank {rank} on {', '.join(sorted(targets))}; say so in "
            "finetune.lora.r and finetune.lora.targets"
        )
    return adapter


def check_data(sweep: Sweep) -> None:
    """Loads every dataset and adapter that the sweep names.

    Raises:
        DataError: for the first dataset that can't be read, with its place in the sweep.
        ModelError: where `finetune.adapter` can't be used.
    """
    section, evaluate = sweep.finetune, sweep.evaluate
    if section.adapter:
        given_adapter(section)
    trained_on = {f"finetune.data.{place}": ref for place, ref in enumerate(section.data)}
    if section.safety_data:
        trained_on["finetune.safety_data"] = section.safety_data
    if section.safe_adapter:
        trained_on["finetune.safe_adapter.data"] = section.safe_adapter.data
    for key, ref in trained_on.items():
        _load(key, _examples, ref)
    for kind in get_args(Kind):
        for place, ref in enumerate(getattr(evaluate, kind)):
            _load(f"evaluate.{kind}.{place}", functools.partial(_prompts, kind=kind), ref)
    check_gradable(suite(sweep), evaluate.grader is not None)


def _load(key: str, loader: Callable[[DatasetRef], Sequence[Any]], ref: DatasetRef) -> None:
    try:
        rows = loader(ref)
    except DataError as error:
        raise DataError(f"{key}: {error}") from error
    if not rows:
        raise DataError(f"{key}: {ref.name} has no usable rows; `safecomm data show {ref.name}` says why")


@functools.cache
def _examples(ref: DatasetRef) -> tuple[Example, ...]:
    return tuple(load_examples(ref.name, ref.path, ref.limit).rows)


@functools.cache
def _prompts(ref: DatasetRef, kind: Kind) -> tuple[Prompt, ...]:
    return tuple(load_prompts(ref.name, ref.path, ref.limit, ref.columns, kind, ref.shuffle_options).rows)


def _key(folder: Path) -> str:
    key: str = lineage(folder)["key"]
    return key
