"""A model and its adapters measured side by side, outside a sweep: `safecomm evaluate`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from safecomm.cluster.session import ray_session
from safecomm.data.rows import Prompt
from safecomm.defenses.adapter import Adapter
from safecomm.errors import UsageError
from safecomm.judging.labels import Labelled, measured_judges
from safecomm.judging.model_judge import Panel, judge_fleets
from safecomm.judging.results import Measured, measure
from safecomm.judging.verdicts import check_gradable, judged
from safecomm.serving.engine import EngineSettings
from safecomm.serving.fleet import Fleet, wait_for_fleet
from safecomm.serving.models import ModelFolder
from safecomm.serving.responses import Questions, Responses, answers_of
from safecomm.serving.stream import Request, stream
from safecomm.serving.suite import Protocol
from safecomm.spec.sweep import Replicas
from safecomm.statistics.comparisons import Accuracy
from safecomm.statistics.selection import module_type
from safecomm.storage.store import Store

BARE = "model"
"""What the model without an adapter is called."""
Subjects = dict[str, tuple[str | None, Adapter | None]]
"""name -> folder and adapter, both None for the bare model."""


@dataclass(frozen=True)
class Hardware:
    """What the engines run on."""

    target: Replicas
    judge: Replicas
    address: str | None = None
    """A Ray cluster; without it Ray is started on this machine, if anything is to be asked."""


@dataclass(frozen=True)
class Comparison:
    """What all the models came to."""

    measured: list[Measured]
    """The bare model first."""
    rows: pd.DataFrame
    """A row a model and answer, with the column `subject`."""
    judges: dict[str, Accuracy]
    """judge -> how far it agrees with people, where labelled responses were given."""


def compare(
    model: ModelFolder,
    adapters: Sequence[Path],
    prompts: Sequence[Prompt],
    panel: Panel,
    protocol: Protocol,
    store: Store,
    hardware: Hardware,
    labelled: Labelled | None = None,
    say: Callable[[str], None] = print,
) -> Comparison:
    """Has a model, bare and with each adapter, answer what it has not answered before, and judges it.

    Args:
        model: the model that the adapters were trained on.
        adapters: PEFT folders; their folders' names stand for them.
        prompts: the benchmarks' prompts.
        panel: who judges.
        protocol: how the prompts are put.
        store: keeps the answers.
        hardware: what the engines run on.
        labelled: responses that people have judged, which tell how far the judges are to be trusted.
        say: gets lines of progress.

    Raises:
        DataError: where a benchmark needs a grader and there is none.
        ModelError: where an adapter can't be used.
        UsageError: where two adapters have one name.
    """
    check_gradable(prompts, panel.grader is not None)
    subjects = _subjects(adapters)
    kept = {name: _responses(store, model, adapter, protocol) for name, (_, adapter) in subjects.items()}
    questions = protocol.questions(prompts)
    missing = {name: len(responses.missing(questions)) for name, responses in kept.items()}
    say(f"{sum(missing.values())} of {len(questions) * len(subjects)} answers are missing")
    with ExitStack() as running:
        # Ray and the engines are started by the first who has something to ask.
        start = cache(lambda: _start(running, model, subjects, panel.models, protocol, hardware))

        def ask(missing: Mapping[str, Questions]) -> Iterator[tuple[str, pd.DataFrame]]:
            start()
            wait_for_fleet()
            return stream({name: Request(asked, subjects[name][0]) for name, asked in missing.items()}, report=say)

        judges, grader = panel.seated(store, protocol.engine, start)
        rows = {}
        for name, answers in answers_of(kept, questions, ask).items():
            rows[name] = judged(protocol.rows(prompts, answers), judges, grader)
            say(f"{name}: {len(answers)} answers, {missing[name]} of them new")
        trusted = measured_judges(judges, labelled) if labelled else {}
    measured = measure(rows, BARE, panel.names, trusted)
    return Comparison(measured, pd.concat([table.assign(subject=name) for name, table in rows.items()]), trusted)


def _start(
    running: ExitStack,
    model: ModelFolder,
    subjects: Subjects,
    judges: Mapping[str, ModelFolder],
    protocol: Protocol,
    hardware: Hardware,
) -> None:
    on_gpu = running.enter_context(ray_session(hardware.address)).gpus > 0
    modules = [item for _, adapter in subjects.values() if adapter for item in adapter.modules.items()]
    settings = EngineSettings(
        max_new_tokens=protocol.max_new_tokens,
        max_model_len=protocol.max_model_len,
        max_lora_rank=max((factors.A.shape[0] for _, factors in modules), default=0),
        lora_targets=tuple(sorted({module_type(name) for name, _ in modules})),
        sampled=protocol.sampling != "greedy",
    )
    target = Fleet.of(protocol.engine, str(model.path), settings, hardware.target, on_gpu)
    for fleet in [target, *judge_fleets(judges, target, hardware.judge)]:
        running.enter_context(fleet.running())


def _subjects(adapters: Sequence[Path]) -> Subjects:
    subjects: Subjects = {BARE: (None, None)}
    for folder in adapters:
        path = folder.expanduser().absolute()
        if path.name in subjects:
            raise UsageError(f"two models are called {path.name}; rename the folder {path}")
        adapter = Adapter.load(path)
        adapter.check()
        subjects[path.name] = (str(path), adapter)
    return subjects


def _responses(store: Store, model: ModelFolder, adapter: Adapter | None, protocol: Protocol) -> Responses:
    content = adapter.digest() if adapter else ""
    return Responses(store, {"model": model.identity, "adapter": content, **protocol.as_key()})
