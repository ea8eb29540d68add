"""The checks of one node, in the order in which they run."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from safecomm.cluster.cleanup import app_name
from safecomm.plan.finetune_memory import finetune_memory
from safecomm.plan.memory import Serving, fleet_memory, served
from safecomm.plan.shapes import ModelShape
from safecomm.selftest import work
from safecomm.selftest.answers import check_agreement, target_questions, tokens_written
from safecomm.selftest.bench import Bench, Outcome
from safecomm.selftest.guard import guard, guard_fleet
from safecomm.selftest.models import make_models
from safecomm.selftest.sizes import TARGETS
from safecomm.spec.cluster import Replicas

TARGET, SPLIT = "selftest", "selftest-split"
"""The names of the fleets, which differ from those of a sweep in the same job."""


@dataclass(frozen=True)
class Check:
    """One capability that a node must have."""

    name: str
    run: Callable[[Bench], Outcome]
    """Raises if the check fails."""
    needs: Sequence[str] = ()
    """The checks that must succeed first."""
    gpus: int = 0
    """GPUs that the check uses; a check for one GPU runs on the CPU of nodes without GPUs."""


def device(bench: Bench) -> Outcome:
    """Identifies the GPU or CPU of the node and tests it."""
    bench.device = bench.on_node(work.look_at_device, bench.on_gpu, gpus=int(bench.on_gpu))
    return Outcome(f"{bench.device.name}, {bench.memory / (1 << 30):.0f} GiB")


def models(bench: Bench) -> Outcome:
    """Creates the models, adapters and data of the other checks."""
    bench.on_node(make_models, bench.files, bench.sizes)
    if bench.is_roomy:  # as in a sweep, the engines start during the fine-tune
        bench.start(bench.fleet(TARGET))
        bench.start(guard_fleet(bench))
    return Outcome(f"{_shape(bench).parameters / 1e6:,.0f} million parameters, three random adapters")


def fine_tune(bench: Bench) -> Outcome:
    """Trains an adapter on one rank."""
    return _fine_tuned(bench, 1)


def two_ranks(bench: Bench) -> Outcome:
    """Trains an adapter on two ranks, with the model's weights sharded."""
    return _fine_tuned(bench, 2)


def realign(bench: Bench) -> Outcome:
    """Profiles the fine-tuned adapter and merges it with the safe one."""
    found = bench.on_node(work.realign, bench.files, gpus=int(bench.on_gpu))
    return Outcome("agrees with the formulas in fp64", found.memory)


def transformers(bench: Bench) -> Outcome:
    """Generates the reference answers for vLLM with transformers and PEFT."""
    questions = target_questions(bench.sizes.questions)
    arguments = (bench.files.aligned, bench.settings, questions, bench.files.subjects)
    bench.reference, found = bench.on_node(work.ask_transformers, *arguments, gpus=int(bench.on_gpu))
    return Outcome(
        f"{len(bench.reference) - 1} adapters and the bare model", found.memory, None, found.tokens_per_second
    )


def engine(bench: Bench) -> Outcome:
    """Starts vLLM, on GPUs with CUDA graphs, and measures its memory apart from the KV cache."""
    bench.start(bench.fleet(TARGET))
    bench.wait(TARGET)
    serving = Serving(_shape(bench), Replicas(), bench.sizes.context, bench.sizes.merged_rank, TARGETS)
    how = "with CUDA graphs" if bench.on_gpu else "on CPUs"
    when = ", started during the fine-tune" if bench.is_roomy else ""
    return Outcome(f"vLLM, {how}{when}", _engine_memory(bench), fleet_memory(serving, bench.memory).total)


def answers(bench: Bench) -> Outcome:
    """Compares vLLM's answers with transformers'."""
    return _compared(bench, TARGET)


def replacement(bench: Bench) -> Outcome:
    """Kills the engine's process and checks the answers of its replacement."""
    process = bench.on_node(work.kill_engine, app_name(TARGET))
    bench.say("killed the engine's process; waiting for Ray Serve to replace it")
    bench.wait_for_another(TARGET, process)
    return replace(_compared(bench, TARGET), tokens_per_second=None)


def tensor_parallel(bench: Bench) -> Outcome:
    """Splits an engine across two GPUs and compares its answers with transformers'."""
    bench.stop()
    bench.start(bench.fleet(SPLIT, Replicas(tensor_parallel=2)))
    bench.wait(SPLIT)
    return _compared(bench, SPLIT)


def _shape(bench: Bench) -> ModelShape:
    return ModelShape.of(json.loads((bench.files.aligned / "config.json").read_text(encoding="utf-8")))


def _fine_tuned(bench: Bench, workers: int) -> Outcome:
    out = bench.files.tuned if workers == 1 else bench.files.folder / "ranks"
    arguments = (bench.files, bench.sizes, out, workers, bench.on_gpu, bench.node.labels)
    found = bench.on_node(work.fine_tune, *arguments)
    planned = finetune_memory(_shape(bench), bench.sizes.finetune, workers).total
    text = f"{bench.sizes.steps} steps, ZeRO-3, {bench.sizes.precision}"
    return Outcome(text, found.memory, planned, found.tokens_per_second)


def _engine_memory(bench: Bench) -> int:
    """Returns the engine's bytes, with a KV cache for one text as in the plan; on CPUs, those of its process."""
    if not bench.on_gpu:
        return bench.on_node(work.engine_bytes, app_name(TARGET))
    spare = bench.cache_tokens(TARGET) - bench.sizes.context
    return served(bench.memory) - spare * _shape(bench).kv_bytes


def _compared(bench: Bench, fleet: str) -> Outcome:
    questions = target_questions(bench.sizes.questions)
    subjects = {name: folder for name, folder in bench.files.subjects.items() if name in bench.reference}
    found = bench.ask(fleet, questions, subjects)
    worst, alike = check_agreement(found, bench.reference, bench.sizes)
    started = time.monotonic()
    again = bench.ask(fleet, questions, subjects)
    rate = tokens_written(bench.files.aligned, chain.from_iterable(again.values())) / (time.monotonic() - started)
    text = f"agrees with transformers: log-probabilities within {worst:.3f}, {alike:.0%} of the text"
    return Outcome(text, tokens_per_second=rate)


CHECKS = (
    Check("device", device, gpus=1),
    Check("models", models, ("device",)),
    Check("fine-tune", fine_tune, ("models",), gpus=1),
    Check("fine-tune on two ranks", two_ranks, ("models",), gpus=2),
    Check("profile and merge", realign, ("fine-tune",), gpus=1),
    Check("transformers", transformers, ("models",), gpus=1),
    Check("engine", engine, ("models",), gpus=1),
    Check("answers", answers, ("transformers", "engine"), gpus=1),
    Check("replacement", replacement, ("answers",), gpus=1),
    Check("guard", guard, ("models",), gpus=1),
    Check("tensor parallelism", tensor_parallel, ("transformers",), gpus=2),
)
"""The order allows a single GPU: each check waits until the GPU is free."""
