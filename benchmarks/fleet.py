"""Compares the fleet with the two usual ways of evaluating adapters with vLLM.

    python benchmarks/fleet.py                            the lab's model, 2 cores, about 15 minutes
    python benchmarks/fleet.py --model MODEL --adapter A  any model and its adapters

`offline`: vLLM's `LLM` class with default settings. `in-process`: the same with the model in the caller's process and
on all cores; the fastest option on CPUs, but it leaves no core for anything else. `fleet`: Ray Data, Ray Serve and
vLLM, as in a sweep. `per adapter`: as in the published scripts, one process per adapter merges it into the model and
starts an engine with the result.

1. Throughput after warm-up: one adapter, long answers that ignore end-of-sequence; fleet / offline.
2. Total time with start-up: all adapters, short answers; per adapter / fleet.

Each method runs in separate processes, on the same prompts. Memory is the peak total PSS of the processes.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console
from rich.table import Table

from safecomm.data.rows import Prompt
from safecomm.defenses.adapter import Adapter, Factors
from safecomm.defenses.weights import Weights
from safecomm.serving.engine import EngineSettings
from safecomm.serving.models import model_folder
from safecomm.serving.protocol import EvaluationProtocol
from safecomm.serving.vllm_engine import engine_arguments
from safecomm.statistics.selection import module_type
from safecomm.storage.store import Store

RANK, TARGETS = 8, ("q_proj", "v_proj")
WARM_UP = 64
"""Prompts answered before timing starts, if start-up is not timed."""


@dataclass(frozen=True)
class Work:
    """The workload."""

    model: str
    adapters: list[str]
    prompts: int
    new_tokens: int
    from_start: bool
    """Whether the time includes engine start-up."""

    @property
    def tokens(self) -> int:
        """The total number of generated tokens."""
        return len(self.adapters) * self.prompts * self.new_tokens

    @property
    def settings(self) -> EngineSettings:
        """The engine's settings."""
        ranks, targets = set(), set()
        for adapter in self.adapters:
            for name, factors in Adapter.load(adapter).modules.items():
                ranks.add(factors.A.shape[0])
                targets.add(module_type(name))
        on_gpu = torch.cuda.is_available()
        return EngineSettings(self.new_tokens, 512, max(ranks), tuple(sorted(targets)), on_gpu, ignore_eos=True)

    def distinct_prompts(self) -> list[Prompt]:
        """Returns the prompts, all different."""
        from safecomm.data.lab.datasets import borderline_prompts, harm_prompts

        texts = [prompt.text for prompt in [*harm_prompts(), *borderline_prompts()]]
        rounds = -(-self.prompts // len(texts))
        numbered = [f"{text} ({number})" for number in range(rounds) for text in texts]
        return [Prompt("benchmark", "red_team", text) for text in numbered[: self.prompts]]


@dataclass
class Times:
    """The cost of one method."""

    seconds: float
    first: float
    """Seconds until the first answer."""
    memory: float = 0.0
    """GiB."""


def offline(work: Work) -> Times:
    """Answers with vLLM's offline interface and its default settings."""
    environment = dict(os.environ)
    arguments = engine_arguments(work.model, work.settings)
    if not work.settings.on_gpu:
        for name in ("distributed_executor_backend", "worker_cls"):
            del arguments[name]
        kept = {"VLLM_CPU_KVCACHE_SPACE": os.environ["VLLM_CPU_KVCACHE_SPACE"]}
        os.environ.clear()
        os.environ.update(environment | kept)
    return _offline(work, arguments)


def in_process(work: Work) -> Times:
    """Answers with vLLM's offline interface, with the model in this process."""
    return _offline(work, engine_arguments(work.model, work.settings))


def _offline(work: Work, arguments: dict[str, Any]) -> Times:
    started = time.monotonic()
    from vllm.lora.request import LoRARequest

    llm, ask = _engine(arguments, work.new_tokens)
    first = 0.0
    for number, adapter in enumerate(work.adapters, 1):
        lora = LoRARequest(adapter, number, adapter)
        if not work.from_start:
            ask(llm, work.distinct_prompts()[:WARM_UP], lora)
            started = time.monotonic()
        ask(llm, work.distinct_prompts(), lora)
        first = first or time.monotonic() - started
    return Times(time.monotonic() - started, first)


def fleet(work: Work) -> Times:
    """Answers like a sweep, all adapters in one pass."""
    from safecomm.cluster.session import ray_session
    from safecomm.serving.fleet import Fleet, wait_for_fleet
    from safecomm.serving.stream import Request, stream

    started = time.monotonic()
    questions = EvaluationProtocol("vllm", work.new_tokens, 512).questions(work.distinct_prompts())
    with ray_session(None), Fleet("vllm", work.model, work.settings, 1).running():
        wait_for_fleet(1800)
        if not work.from_start:
            list(stream({"": Request(dict(list(questions.items())[:WARM_UP]), work.adapters[0])}))
            started = time.monotonic()
        seen: list[float] = []
        requests = {adapter: Request(questions, adapter) for adapter in work.adapters}
        answers = [rows for _, rows in stream(requests, report=lambda line: seen.append(time.monotonic()))]
        ended = time.monotonic()
    assert all((rows["error"] == "").all() for rows in answers)
    return Times(ended - started, seen[0] - started)


def merged(work: Work) -> Times:
    """Merges one adapter into the model and answers with a vLLM engine on the result, with default settings."""
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"  # merging starts threads, which do not survive a fork
    # By default vLLM takes nearly all memory, which may not be free at a second start.
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"
    return _merged(work, {"max_model_len": 512})


def merged_in_process(work: Work) -> Times:
    """Merges one adapter into the model and answers with an engine in this process."""
    return _merged(work, engine_arguments(work.model, replace(work.settings, max_lora_rank=0, lora_targets=())))


def _merged(work: Work, arguments: dict[str, Any]) -> Times:
    started = time.monotonic()
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(work.model)
    with tempfile.TemporaryDirectory() as folder:
        PeftModel.from_pretrained(model, work.adapters[0]).merge_and_unload().save_pretrained(folder)
        AutoTokenizer.from_pretrained(work.model).save_pretrained(folder)
        llm, ask = _engine(arguments | {"model": folder}, work.new_tokens)
        ask(llm, work.distinct_prompts(), None)
    return Times(time.monotonic() - started, time.monotonic() - started)


def _engine(arguments: dict[str, Any], new_tokens: int) -> tuple[Any, Callable[[Any, list[Prompt], Any], Any]]:
    """Returns vLLM's offline engine and a function that sends prompts to it."""
    from vllm import LLM, SamplingParams

    llm = LLM(**arguments)
    sampling = SamplingParams(temperature=0, max_tokens=new_tokens, ignore_eos=True)

    def ask(llm: Any, prompts: list[Prompt], adapter: Any) -> Any:
        chats = [[{"role": "user", "content": prompt.text}] for prompt in prompts]
        return llm.chat(chats, sampling, lora_request=adapter, use_tqdm=False)

    return llm, ask


WAYS = {
    "offline": offline,
    "in-process": in_process,
    "fleet": fleet,
    "merged": merged,
    "merged in-process": merged_in_process,
}


def measured(way: str, work: Work) -> Times:
    """Runs a method in a separate process and monitors its memory."""
    context = multiprocessing.get_context("spawn")
    answer, result = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(way, asdict(work), result))
    begun = time.monotonic()
    process.start()
    result.close()
    with _watched(process.pid) as peak:
        try:
            times = Times(**json.loads(answer.recv()))
        except EOFError:
            raise SystemExit(f"{way} failed") from None
        engines = psutil.Process(process.pid).children(recursive=True)
        process.join()
        psutil.wait_procs(engines, timeout=60)  # the next method needs their memory
    if work.from_start:  # includes Python's start and the engines' shutdown
        times.seconds, times.first = time.monotonic() - begun, times.first
    times.memory = max(peak) / 2**30
    return times


def _child(way: str, work: dict[str, Any], result: Any) -> None:
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    result.send(json.dumps(asdict(WAYS[way](Work(**work)))))


@contextmanager
def _watched(pid: int | None) -> Iterator[list[int]]:
    """Samples the memory of a process and its descendants twice per second."""
    done, peak = threading.Event(), [0]

    def watch() -> None:
        while not done.wait(0.5):
            peak.append(_memory(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def _memory(pid: int | None) -> int:
    total = 0
    try:
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            total += process.memory_full_info().pss
    except psutil.Error:
        return 0
    return total


def random_adapters(model: Path, count: int, folder: Path) -> list[str]:
    """Writes random adapters, each of which changes the model's output."""
    weights = Weights(model)
    shapes = {name: weights.shape(name) for name in weights.modules(list(TARGETS))}
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "target_modules": list(TARGETS)}
    for number in range(count):
        rng = torch.Generator().manual_seed(number)
        modules = {
            name: Factors(
                torch.randn(RANK, d_in, generator=rng) / d_in**0.5, torch.randn(d_out, RANK, generator=rng) * 0.1, 1.0
            )
            for name, (d_out, d_in) in shapes.items()
        }
        Adapter(modules, config, "random").save(folder / f"adapter{number}")
    return [str(folder / f"adapter{number}") for number in range(count)]


def main() -> None:
    """Runs the benchmarks and prints two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lab://aligned", help="folder, Hub id or lab://aligned")
    parser.add_argument("--adapter", action="append", help="a PEFT folder; repeatable. Default: eight random adapters")
    parser.add_argument("--storage", default="runs", help="folder with the lab's models")
    parser.add_argument("--only", choices=["throughput", "starts"], help="run only one of the two comparisons")
    given = parser.parse_args()
    console = Console()
    model = model_folder(given.model, Store(Path(given.storage) / "store"))
    with tempfile.TemporaryDirectory() as scratch:
        adapters = given.adapter or random_adapters(model, 8, Path(scratch))
        if given.only != "starts":
            throughput(Work(str(model), adapters[:1], 512, 256, from_start=False), console)
        if given.only != "throughput":
            starts(Work(str(model), adapters, 64, 24, from_start=True), console)


def throughput(work: Work, console: Console) -> None:
    """Compares the fleet with the offline engine after warm-up."""
    found = {way: measured(way, work) for way in ("offline", "in-process", "fleet")}
    table = _table(f"{work.prompts} prompts x {work.new_tokens} new tokens, after warm-up", "tokens/s")
    for way, times in found.items():
        _add(table, way, times, f"{work.tokens / times.seconds:,.0f}")
    console.print(table)
    for way in ("offline", "in-process"):
        console.print(f"fleet / {way}: {found[way].seconds / found['fleet'].seconds:.2f} x the tokens/s")


def starts(work: Work, console: Console) -> None:
    """Compares the fleet with one engine per adapter, including start-up."""
    found = {
        "per adapter": one_by_one("merged", work),
        "per adapter, in-process": one_by_one("merged in-process", work),
        "fleet": measured("fleet", work),
    }
    sizes = f"{len(work.adapters)} adapters x {work.prompts} prompts x {work.new_tokens} new tokens"
    table = _table(f"{sizes}, including start-up", "tokens/s")
    for way, times in found.items():
        _add(table, way, times, f"{work.tokens / times.seconds:,.0f}")
    console.print(table)
    for way in ("per adapter", "per adapter, in-process"):
        console.print(f"{way} / fleet: {found[way].seconds / found['fleet'].seconds:.1f} x the time")


def one_by_one(way: str, work: Work) -> Times:
    """Measures a method that needs one process per adapter."""
    each = [measured(way, replace(work, adapters=[adapter])) for adapter in work.adapters]
    return Times(sum(one.seconds for one in each), each[0].first, max(one.memory for one in each))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in ("", "total", "first result", "peak memory", *columns):
        table.add_column(column, justify="right")
    return table


def _add(table: Table, way: str, times: Times, *values: str) -> None:
    table.add_row(way, f"{times.seconds:.1f} s", f"{times.first:.1f} s", f"{times.memory:.2f} GiB", *values)


if __name__ == "__main__":
    main()
