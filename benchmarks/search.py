"""Compares three ways to run a study of 24 SafeMERGE points (6 module counts x 4 weights).

    python benchmarks/search.py              the lab's models, 2 cores, about an hour
    python benchmarks/search.py --points 4   times the slow methods on a few points and extrapolates

`safecomm`: this system with default settings. `plain`: its fleet without the store, deduplication of equivalent
settings and early stopping: every point is merged, evaluated on all prompts and judged. `scripts`: as in the published
scripts, one process per point merges full models and another evaluates the result with a vLLM engine with default
settings.

All methods start from the same fine-tunes and choose by the same rule on the same prompts. The evaluation on the report
split is not timed.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from rich.console import Console
from rich.table import Table

from safecomm.plan.data import split_prompts
from safecomm.serving.protocol import EvaluationProtocol
from safecomm.spec import Sweep

LOWEST, WEIGHTS = [0, 7, 14, 20, 24, 28], [0.5, 0.6, 0.7, 0.8]
ARM = "safe_merge"
TOKENS = 24


def study(storage: Path, **changes: Any) -> dict[str, Any]:
    """Returns the study as a sweep."""
    settings = {"lowest": {"grid": LOWEST}, "weight": {"grid": WEIGHTS}}
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    return {
        "name": "study",
        "model": {"base": "lab://base", "aligned": "lab://aligned"},
        "finetune": {
            "data": ["lab-telecom"],
            "safe_adapter": {"data": "lab-safety", "epochs": 1, "learning_rate": 3e-3},
            "lora": {"r": 16, "alpha": 32, "targets": targets},
            "batch_size": 16,
            "learning_rate": 1e-3,
            "schedule": "cosine",
            "warmup": 0.05,
            "max_length": 128,
            "zero": 2,
        },
        "arms": {ARM: [{ARM: settings}]},
        "evaluate": {
            "red_team": ["lab-harm"],
            "over_refusal": ["lab-borderline"],
            "task": [{"name": "lab-telecom", "limit": 240}],
            "judges": ["compliance"],
            "max_new_tokens": TOKENS,
            "max_model_len": 256,
        },
        "search": {"target_asr": 0.1},
        "storage": str(storage),
        **changes,
    }


def run(sweep: dict[str, Any], folder: Path) -> None:
    """Runs a sweep through the command line."""
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(sweep))
    environment = os.environ | {"WANDB_MODE": "offline"}
    subprocess.run([sys.executable, "-m", "safecomm", "run", str(file)], check=True, env=environment)


def prepare(folder: Path) -> None:
    """Creates the models and fine-tunes that all methods start from."""
    few = {"red_team": ["lab-harm"], "task": ["lab-telecom"]}
    limited = {kind: [{"name": name, "limit": 8} for name in names] for kind, names in few.items()}
    one = {ARM: [{ARM: {"lowest": 0, "weight": 0.5}}]}
    evaluate = study(folder)["evaluate"] | limited | {"over_refusal": []}
    run(study(folder, arms=one, evaluate=evaluate), folder)


def protocol() -> EvaluationProtocol:
    """Returns the evaluation protocol."""
    return EvaluationProtocol("vllm", TOKENS, 256)


def records(sweep: Sweep, point: dict[str, Any], answers: pd.DataFrame) -> dict[str, Any]:
    """Returns a point's rates in the format of a trial record."""
    from safecomm.judging.judges import PhraseJudge
    from safecomm.judging.verdicts import judged
    from safecomm.statistics.metrics import as_columns, rates

    rows = judged(protocol().rows(split_prompts(sweep, "search"), answers), [PhraseJudge("compliance")])
    return {"arm": ARM, "point": json.dumps(point), "status": "done", **as_columns(rates(rows, ["compliance"]))}


def adapters(storage: Path) -> tuple[Path, Path]:
    """Returns the folders of the telecom adapter and the safe adapter."""
    by_data = {}
    for path in (storage / "store" / "finetune").iterdir():
        made = json.loads((path / "lineage.json").read_text())["inputs"]
        drawn = json.loads((storage / "store" / "data" / made["data"] / "lineage.json").read_text())["inputs"]
        by_data["telecom" if drawn["telecom"] else "safe"] = path
    return by_data["telecom"], by_data["safe"]


def models(storage: Path) -> tuple[Path, Path]:
    """Returns the folders of the lab's base and aligned models."""
    from safecomm.serving.models import model_folder
    from safecomm.storage.store import Store

    store = Store(storage / "store")
    return model_folder("lab://base", store), model_folder("lab://aligned", store)


def plain(storage: Path, sweep: Sweep, points: list[dict[str, Any]], report: Callable[[Any], None]) -> None:
    """Evaluates points one after another on one fleet, and reports each result."""
    from safecomm.cluster.session import ray_session
    from safecomm.defenses import Adapter, profile, safe_merge
    from safecomm.serving.engine import EngineSettings
    from safecomm.serving.fleet import Fleet, wait_for_fleet
    from safecomm.serving.stream import Request, stream

    (base, aligned), (telecom, safe) = models(storage), adapters(storage)
    settings = EngineSettings(TOKENS, 256, 32, tuple(sweep.finetune.lora.targets))
    questions = protocol().questions(split_prompts(sweep, "search"))
    with ray_session(None), Fleet("vllm", str(aligned), settings, 1).running():
        for point in points:
            measured = profile(base, aligned, Adapter.load(telecom))
            with tempfile.TemporaryDirectory() as folder:
                safe_merge(measured, Adapter.load(safe), **point).save(folder)
                wait_for_fleet(1800)
                answers = pd.concat([rows for _, rows in stream({"": Request(questions, folder)})])
            report(records(sweep, {f"{ARM}.{key}": value for key, value in point.items()}, answers))


def merge(storage: Path, lowest: int, weight: float, out: Path) -> None:
    """Merges full models module by module, like the published scripts, and writes the full model."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folders, tuned = models(storage), adapters(storage)
    base, aligned = (AutoModelForCausalLM.from_pretrained(folder) for folder in folders)
    ours, theirs = (
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folders[1]), folder).merge_and_unload()
        for folder in tuned
    )
    weights = [dict(model.named_parameters()) for model in (base, aligned, ours, theirs)]
    changed = [name for name in weights[1] if not torch.equal(weights[1][name], weights[2][name])]
    rho, updates = {}, {}
    for name in changed:
        before, after, telecom, safe = (parameters[name].detach().double() for parameters in weights)
        V, dW = after - before, telecom - after
        projected = V @ V.T / V.norm() @ dW
        rho[name] = float((projected * dW).sum() / (projected.norm() * dW.norm()))
        updates[name] = after + weight * dW + (1 - weight) * (safe - after)
    with torch.no_grad():
        for name in sorted(rho, key=rho.__getitem__)[:lowest]:
            weights[2][name].copy_(updates[name])
    ours.save_pretrained(out)
    AutoTokenizer.from_pretrained(folders[1]).save_pretrained(out)


def answer(model: Path, sweep: Sweep, point: dict[str, Any], report: Callable[[Any], None]) -> None:
    """Evaluates a merged model on all prompts with its own vLLM engine with default settings."""
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"  # by default vLLM takes nearly all memory
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from vllm import LLM, SamplingParams

    from safecomm.serving.engine import Answer, chat_ids, compared, written
    from safecomm.serving.reasoning import Split

    llm = LLM(str(model), max_model_len=256)
    tokenizer = llm.get_tokenizer()
    found: dict[str, Answer] = {}
    questions = protocol().questions(split_prompts(sweep, "search"))
    to_write = {name: question for name, question in questions.items() if not question["options"]}
    prompts = [{"prompt_token_ids": chat_ids(tokenizer, question)} for question in to_write.values()]
    outputs = llm.generate(prompts, SamplingParams(temperature=0, max_tokens=TOKENS), use_tqdm=False)
    for name, output in zip(to_write, outputs, strict=True):
        found[name] = written(Split("", output.outputs[0].text), "stop")
    for name in questions.keys() - to_write.keys():
        start = chat_ids(tokenizer, questions[name])
        ends = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in questions[name]["options"]]
        prompts = [{"prompt_token_ids": start + end} for end in ends]
        likely = llm.generate(prompts, SamplingParams(max_tokens=1, prompt_logprobs=0), use_tqdm=False)
        scores = [_mean(output.prompt_logprobs[len(start) :], end) for output, end in zip(likely, ends, strict=True)]
        found[name] = compared(scores)
    report(records(sweep, point, pd.DataFrame([{"question_id": name, **one} for name, one in found.items()])))


def _mean(places: list[Any], tokens: list[int]) -> float:
    return sum(place[token].logprob for place, token in zip(places, tokens, strict=True)) / len(tokens)


def scripts(storage: Path, sweep: Sweep, points: list[dict[str, Any]], report: Callable[[Any], None]) -> None:
    """Evaluates points like the published scripts, with two processes each."""
    for point in points:
        with tempfile.TemporaryDirectory() as folder:
            in_process(merge, storage, point["lowest"], point["weight"], Path(folder) / "merged")
            named = {f"{ARM}.{key}": value for key, value in point.items()}
            for record in in_process(answer, Path(folder) / "merged", sweep, named, reports=True):
                report(record)


def in_process(function: Callable[..., None], *arguments: Any, reports: bool = False) -> list[Any]:
    """Runs a function in a separate process and returns its reports."""
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    process = context.Process(target=function, args=(*arguments, queue.put) if reports else arguments)
    process.start()
    found = []
    while process.is_alive() or not queue.empty():
        process.join(0.1)
        while not queue.empty():
            found.append(queue.get())
    if process.exitcode:
        raise SystemExit(f"{function.__name__} failed")
    return found


def chosen(table: pd.DataFrame) -> str:
    """Returns the point that a sweep would recommend."""
    from safecomm.report.choice import Limits, recommend

    found = recommend(table, Limits(0.1), None)
    return "none" if found is None else ", ".join(f"{value:g}" for value in json.loads(found["point"]).values())


def main() -> None:
    """Runs the benchmark and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=24, help="points that the slow methods evaluate")
    parser.add_argument("--only", choices=["safecomm", "plain", "scripts"], help="run only one method")
    parser.add_argument("--storage", type=Path, help="folder for models and fine-tunes, reused by later runs")
    given = parser.parse_args()
    console = Console()
    points = [{"lowest": lowest, "weight": weight} for lowest, weight in product(LOWEST, WEIGHTS)]
    table = Table(title="24 points", title_justify="left", box=None, pad_edge=False)
    for column in ("", "time", "engine starts", "prompts answered", "chosen (modules, weight)"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as scratch:
        storage = (given.storage or Path(scratch)).resolve()
        prepare(storage)
        sweep = Sweep.model_validate(study(storage))
        each = len(split_prompts(sweep, "search"))
        times = {}
        if given.only in (None, "safecomm"):
            times["safecomm"], answered, point = whole(storage, Path(scratch) / "fresh")
            table.add_row("safecomm", f"{times['safecomm']:.0f} s", "1", f"{answered:,}", point)
        for name, way in (("plain", plain), ("scripts", scripts)):
            if given.only not in (None, name):
                continue
            began = time.monotonic()
            found = in_process(way, storage, sweep, points[: given.points], reports=True)
            times[name] = (time.monotonic() - began) * len(points) / given.points
            starts = "1" if name == "plain" else f"{len(points)}"
            choice = chosen(pd.DataFrame(found)) if given.points == len(points) else f"{given.points} points measured"
            table.add_row(name, f"{times[name]:.0f} s", starts, f"{each * len(points):,}", choice)
    console.print(table)
    for name in ("plain", "scripts"):
        if "safecomm" in times and name in times:
            console.print(f"{name} / safecomm: {times[name] / times['safecomm']:.1f} x the time")


def whole(storage: Path, fresh: Path) -> tuple[float, int, str]:
    """Runs the study as a sweep; returns the seconds until the choice, the prompts answered and the choice."""
    for stage in ("lab", "data", "finetune"):
        shutil.copytree(storage / "store" / stage, fresh / "store" / stage)
    began = time.time()
    run(study(fresh), fresh)
    trials = [path for path in (fresh / "study" / "trials").glob("*-search.json")]
    ended = max(path.stat().st_mtime for path in trials)
    records_ = [json.loads(path.read_text()) for path in trials]
    reference = {"original", "undefended"}
    answered = sum(
        int(record[f"{metric}_n"])
        for record in records_
        if record["arm"] not in reference
        for metric in ("asr", "accuracy", "over_refusal")
    )
    point = json.loads((fresh / "study" / "pareto.json").read_text())["recommended"]["point"]
    return ended - began, answered, ", ".join(f"{value:g}" for value in point.values())


if __name__ == "__main__":
    main()
