"""Compares a model with and without adapters, outside a sweep: `safecomm evaluate`."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from safecomm.cluster.session import ray_session
from safecomm.data.rows import Prompt
from safecomm.defenses.adapter import Adapter, Factors
from safecomm.errors import UsageError
from safecomm.judging.labels import Labelled, measured_judges
from safecomm.judging.measure import Measurement, Subject, measure
from safecomm.judging.model_judge import Panel, judge_fleets
from safecomm.judging.results import Measured, results_of
from safecomm.serving.engine import EngineSettings
from safecomm.serving.fleet import Fleet
from safecomm.serving.models import ModelFolder
from safecomm.serving.protocol import EvaluationProtocol
from safecomm.spec.cluster import Replicas
from safecomm.statistics.comparisons import JudgeAccuracy
from safecomm.statistics.selection import module_type
from safecomm.storage.store import Store

BARE = "model"
"""The name of the model without an adapter."""


@dataclass(frozen=True)
class Hardware:
    """The hardware for the engines."""

    target: Replicas
    judge: Replicas
    address: str | None = None
    """A Ray cluster; by default Ray starts on this machine, and only if answers are missing."""


@dataclass(frozen=True)
class Comparison:
    """The results of all models."""

    measured: list[Measured]
    """One per model, the bare model first."""
    rows: pd.DataFrame
    """A row per model and answer; the model is in the column `subject`."""
    judges: dict[str, JudgeAccuracy]
    """judge -> agreement with human labels; empty without labelled responses."""


def compare(
    model: ModelFolder,
    adapters: Sequence[Path],
    prompts: Sequence[Prompt],
    panel: Panel,
    protocol: EvaluationProtocol,
    store: Store,
    hardware: Hardware,
    labelled: Labelled | None = None,
    say: Callable[[str], None] = print,
) -> Comparison:
    """Measures a model without and with each adapter; generates only answers that are not in the store.

    Args:
        model: the model that the adapters were trained on.
        adapters: PEFT folders; the folder names are the adapters' names.
        prompts: the benchmarks' prompts.
        panel: the judges and the grader.
        protocol: the generation settings.
        store: the store of answers and verdicts.
        hardware: the hardware for the engines.
        labelled: responses with human labels, for measuring the judges.
        say: called with progress lines.

    Raises:
        ModelError: where an adapter can't be used, or a chat template does not take the prompts.
        UsageError: where two adapters have one name.
    """
    loaded = _adapters(adapters)
    subjects = {BARE: Subject()} | {
        name: Subject(folder, adapter.digest()) for name, (folder, adapter) in loaded.items()
    }
    measurement = Measurement(model, prompts, panel, protocol, store)
    measurement.check_chat_templates()
    questions = measurement.questions
    missing = {name: len(measurement.responses(subject).missing(questions)) for name, subject in subjects.items()}
    say(f"{sum(missing.values())} of {len(questions) * len(subjects)} answers are missing")
    with ExitStack() as running:
        # Ray and the engines are started by the first who has something to ask.
        modules = [item for _, adapter in loaded.values() for item in adapter.modules.items()]
        start = cache(lambda: start_engines(running, model, modules, panel, protocol, hardware))
        rows = measure(measurement, subjects, start, say)
        for name, table in rows.items():
            say(f"{name}: {len(table)} answers, {missing[name]} of them new")
        judges = panel.seated(store, protocol.engine, start).judges
        trusted = measured_judges(judges, labelled) if labelled else {}
    results = results_of(rows, BARE, panel.names, trusted)
    return Comparison(results, pd.concat([table.assign(subject=name) for name, table in rows.items()]), trusted)


def start_engines(
    running: ExitStack,
    model: ModelFolder,
    modules: Sequence[tuple[str, Factors]],
    panel: Panel,
    protocol: EvaluationProtocol,
    hardware: Hardware,
) -> None:
    """Starts Ray, and engines for a model with adapters and for its judges, until `running` ends.

    Args:
        running: stops them when it closes.
        model: the model.
        modules: the adapters' modules by name, of all adapters that will be used.
        panel: the judges.
        protocol: the generation settings.
        hardware: the hardware for the engines.
    """
    on_gpu = running.enter_context(ray_session(hardware.address)).gpus > 0
    settings = EngineSettings(
        max_new_tokens=protocol.max_new_tokens,
        max_model_len=protocol.max_model_len,
        max_lora_rank=max((factors.A.shape[0] for _, factors in modules), default=0),
        lora_targets=tuple(sorted({module_type(name) for name, _ in modules})),
        sampled=protocol.sampling != "greedy",
    )
    target = Fleet.of(protocol.engine, str(model.path), settings, hardware.target, on_gpu)
    for fleet in [target, *judge_fleets(panel, target, hardware.judge)]:
        running.enter_context(fleet.running())


def _adapters(folders: Sequence[Path]) -> dict[str, tuple[Path, Adapter]]:
    """Returns folder name -> folder and adapter."""
    found: dict[str, tuple[Path, Adapter]] = {}
    for folder in folders:
        path = folder.expanduser().absolute()
        if path.name in (BARE, *found):
            raise UsageError(f"two models are called {path.name}; rename the folder {path}")
        adapter = Adapter.load(path)
        adapter.check()
        found[path.name] = path, adapter
    return found
