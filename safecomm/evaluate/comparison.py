"""A model and its adapters measured side by side, outside a sweep: `safecomm evaluate`."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import combinations
from pathlib import Path

import pandas as pd

from safecomm.data.rows import Prompt
from safecomm.defenses.adapter import Adapter
from safecomm.defenses.weights import module_type
from safecomm.errors import UsageError
from safecomm.evaluate.engine import EngineSettings
from safecomm.evaluate.fleet import Fleet, wait_for_fleet
from safecomm.evaluate.guard import guard_fleets, judges_of
from safecomm.evaluate.metrics import METRICS, Rate, rates
from safecomm.evaluate.responses import Questions, Responses
from safecomm.evaluate.statistics import Agreement, Difference, agreement, holm, paired_difference
from safecomm.evaluate.stream import stream
from safecomm.evaluate.suite import questions_of, with_answers
from safecomm.evaluate.verdicts import judged
from safecomm.models import ModelFolder
from safecomm.ray_session import ray_session
from safecomm.store import Store, write_json

BARE = "model"
"""What the model without an adapter is called."""
Subjects = dict[str, tuple[str | None, Adapter | None]]
"""name -> folder and adapter, both None for the bare model."""


@dataclass(frozen=True)
class Asking:
    """How every prompt is put to the models."""

    engine: str
    max_new_tokens: int
    max_model_len: int
    system_prompt: str | None
    replicas: int
    tensor_parallel: int


@dataclass(frozen=True)
class Measured:
    """What one model, bare or with an adapter, came to."""

    name: str
    rates: dict[str, Rate]
    differences: dict[str, Difference]
    """metric -> difference to the bare model on the same prompts; p-values corrected over all adapters (Holm)."""
    agreements: dict[str, Agreement]
    """`JUDGE, JUDGE` -> how far they agree on the harmful prompts."""


def compare(
    model: ModelFolder,
    adapters: Sequence[Path],
    prompts: Sequence[Prompt],
    judges: Mapping[str, ModelFolder | None],
    asking: Asking,
    store: Store,
    address: str | None = None,
    say: Callable[[str], None] = print,
) -> tuple[list[Measured], pd.DataFrame]:
    """Has a model, bare and with each adapter, answer what it has not answered before, and judges it.

    Args:
        model: the model that the adapters were trained on.
        adapters: PEFT folders; their folders' names stand for them.
        prompts: the benchmarks' prompts.
        judges: who labels answers to harmful prompts, with the model of those that are one; the first decides.
        asking: how the prompts are put.
        store: keeps the answers.
        address: a Ray cluster; without it Ray is started on this machine, if anything is to be asked.
        say: gets lines of progress.

    Returns:
        What each came to, the bare model first, and a row a model and prompt, with the column `subject`.

    Raises:
        ModelError: where an adapter can't be used.
        UsageError: where two adapters have one name.
    """
    subjects = _subjects(adapters)
    kept = {name: _responses(store, model, adapter, asking) for name, (_, adapter) in subjects.items()}
    questions = questions_of(prompts, asking.system_prompt)
    missing = {name: len(responses.missing(questions)) for name, responses in kept.items()}
    say(f"{sum(missing.values())} of {len(prompts) * len(subjects)} answers are missing")
    guards = {name: guard for name, guard in judges.items() if guard}
    with ExitStack() as running:
        # Ray and the engines are started by the first who has something to ask.
        start = cache(lambda: _start(running, model, subjects, guards, asking, address))

        def ask(folder: str | None, missing: Questions) -> pd.DataFrame:
            start()
            wait_for_fleet()
            return stream(missing, folder)

        panel = judges_of(list(judges), guards, store, asking.engine, start)
        rows = {}
        for name, (folder, _) in subjects.items():
            answers = kept[name].of(questions, partial(ask, folder))
            rows[name] = judged(with_answers(prompts, answers), panel)
            say(f"{name}: {len(answers)} answers, {missing[name]} of them new")
    return _measured(rows, list(judges)), pd.concat([table.assign(subject=name) for name, table in rows.items()])


def _start(
    running: ExitStack,
    model: ModelFolder,
    subjects: Subjects,
    guards: Mapping[str, ModelFolder],
    asking: Asking,
    address: str | None,
) -> None:
    on_gpu = running.enter_context(ray_session(address)).gpus > 0
    modules = [item for _, adapter in subjects.values() if adapter for item in adapter.modules.items()]
    settings = EngineSettings(
        max_new_tokens=asking.max_new_tokens,
        max_model_len=asking.max_model_len,
        max_lora_rank=max((factors.A.shape[0] for _, factors in modules), default=0),
        lora_targets=tuple(sorted({module_type(name) for name, _ in modules})),
        tensor_parallel=asking.tensor_parallel,
    )
    target = Fleet(asking.engine, str(model.path), settings, asking.replicas, on_gpu)
    for fleet in [target, *guard_fleets(guards, settings, target, asking.replicas)]:
        running.enter_context(fleet.running())


def _subjects(adapters: Sequence[Path]) -> Subjects:
    subjects: Subjects = {BARE: (None, None)}
    for folder in adapters:
        path = folder.expanduser().resolve()
        if path.name in subjects:
            raise UsageError(f"two models are called {path.name}; rename the folder {path}")
        adapter = Adapter.load(path)
        adapter.check()
        subjects[path.name] = (str(path), adapter)
    return subjects


def _responses(store: Store, model: ModelFolder, adapter: Adapter | None, asking: Asking) -> Responses:
    how = {"engine": asking.engine, "max_new_tokens": asking.max_new_tokens, "max_model_len": asking.max_model_len}
    content = adapter.digest() if adapter else ""
    return Responses(store, {"model": model.identity, "adapter": content, "system_prompt": asking.system_prompt, **how})


def _measured(rows: dict[str, pd.DataFrame], judges: Sequence[str]) -> list[Measured]:
    compared = {name: _differences(table, rows[BARE]) for name, table in rows.items() if name != BARE}
    for metric in {metric for found in compared.values() for metric in found}:
        family = {name: found[metric].p for name, found in compared.items() if metric in found}
        for name, p in holm(family).items():
            compared[name][metric] = Difference(**asdict(compared[name][metric]) | {"p": p})
    return [
        Measured(name, rates(table, judges), compared.get(name, {}), _agreements(table, judges))
        for name, table in rows.items()
    ]


def _differences(ours: pd.DataFrame, bare: pd.DataFrame) -> dict[str, Difference]:
    """Compares verdicts on the prompts on which both have one."""
    both = ours.set_index("prompt_id").join(bare.set_index("prompt_id")["verdict"].rename("bare"))
    found = {}
    for kind, metric in METRICS.items():
        verdicts = [metric.hit, metric.miss]
        scored = both[(both["kind"] == kind) & both["verdict"].isin(verdicts) & both["bare"].isin(verdicts)]
        if len(scored):
            found[metric.name] = paired_difference(
                (scored["verdict"] == metric.hit).to_numpy(), (scored["bare"] == metric.hit).to_numpy()
            )
    return found


def _agreements(rows: pd.DataFrame, judges: Sequence[str]) -> dict[str, Agreement]:
    harmful = rows[rows["kind"] == "red_team"]
    columns = {judge: "verdict" if place == 0 else f"verdict@{judge}" for place, judge in enumerate(judges)}
    return {
        f"{one}, {other}": agreement(list(harmful[columns[one]]), list(harmful[columns[other]]))
        for one, other in combinations(judges, 2)
        if len(harmful)
    }


def write_results(out: Path, measured: Sequence[Measured], rows: pd.DataFrame) -> None:
    """Writes `results.json` (rates, differences, agreements) and `rows.parquet` (every answer and verdict)."""
    write_json(out / "results.json", [asdict(one) for one in measured])
    rows.to_parquet(out / "rows.parquet")
