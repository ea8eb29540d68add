"""Compares fine-tuning under Ray Train with the same loop launched by torchrun, and packing with padding.

    python benchmarks/finetune.py                                        the lab's model, 2 ranks on CPUs, minutes
    python benchmarks/finetune.py --teleqna TeleQnA.txt                  the same with TeleQnA's questions
    python benchmarks/finetune.py --model MODEL --workers 8 --zero 3 ... any model, on GPUs

Both launchers run the trainer of `safecomm.finetune.worker`. Under Ray Train it also reports to Ray and publishes its
checkpoints. They take turns, and the fastest of several runs counts: on a shared machine the others were disturbed.
Starting the ranks is not timed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from safecomm.data.catalog.registry import load_examples
from safecomm.finetune.job import FinetuneJob
from safecomm.serving.models import model_folder
from safecomm.spec import Finetune
from safecomm.storage.store import Store

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def make_job(options: argparse.Namespace, folder: Path, packing: bool) -> FinetuneJob:
    """Returns a fine-tune of one epoch."""
    name = "teleqna" if options.teleqna else "lab-telecom"
    rows = load_examples(name, options.teleqna, options.examples).rows
    data = folder / "train.jsonl"
    data.write_text("".join(json.dumps({"prompt": row.prompt, "response": row.response}) + "\n" for row in rows))
    section = Finetune.model_validate(
        {
            "data": ["lab-telecom"],
            "lora": {"r": 16, "alpha": 32, "targets": TARGETS},
            "epochs": 1,
            "batch_size": options.workers * options.micro_batch,
            "micro_batch_size": options.micro_batch,
            "max_length": options.max_length,
            "zero": options.zero,
            "packing": packing,
        }
    )
    model = model_folder(options.model, Store(folder / "store"))
    return FinetuneJob.of(section, model=model, data=data, workers=options.workers, seed=0)


def under_ray(job: FinetuneJob, folder: Path, on_gpu: bool) -> dict[str, float]:
    """Trains under Ray Train; returns steps and seconds."""
    from safecomm.finetune.launch import finetune, training_metrics

    out = Path(tempfile.mkdtemp(dir=folder))
    finetune(job, out, Store(out / "store"), on_gpu=on_gpu)
    return training_metrics(out)


def under_torchrun(job: FinetuneJob, folder: Path, on_gpu: bool) -> dict[str, float]:
    """Trains with ranks that torchrun launches; returns steps and seconds."""
    out = Path(tempfile.mkdtemp(dir=folder))
    (out / "job.json").write_text(json.dumps(asdict(job)))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={job.workers}"]
    environment = os.environ | ({} if on_gpu else {"DS_ACCELERATOR": "cpu"})
    with (out / "log").open("w") as log:
        done = subprocess.run([*launcher, __file__, "--rank", str(out)], stdout=log, stderr=log, env=environment)
    if done.returncode:
        raise SystemExit((out / "log").read_text()[-2000:])
    found: dict[str, float] = json.loads((out / "result.json").read_text())
    return found


def rank(out: Path) -> None:
    """Is one rank of `under_torchrun`."""
    import torch

    from safecomm.finetune.worker import make_trainer

    trainer = make_trainer(FinetuneJob(**json.loads((out / "job.json").read_text())), str(out / "checkpoints"))
    started = time.time()
    result = trainer.train()
    trainer.save_model(str(out / "adapter"))
    if torch.distributed.get_rank() == 0:
        (out / "result.json").write_text(json.dumps({"steps": result.global_step, "seconds": time.time() - started}))


def main() -> None:
    """Prints both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lab://aligned")
    parser.add_argument("--teleqna", help="the file TeleQnA.txt")
    parser.add_argument("--examples", type=int, default=1600)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--micro-batch", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--zero", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rank", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank:
        rank(options.rank)
        return
    with tempfile.TemporaryDirectory(prefix="finetune-") as folder:
        report(compared(options, Path(folder)), options)


def compared(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Returns the examples per second of each way."""
    import torch

    from safecomm.cluster.session import ray_session

    on_gpu = torch.cuda.is_available()
    ways: dict[str, tuple[Any, bool]] = {
        "Ray Train": (under_ray, False),
        "torchrun": (under_torchrun, False),
        "Ray Train, packed": (under_ray, True),
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    with ray_session(None):
        for _ in range(options.rounds):
            for name, (train, packing) in ways.items():
                seconds = train(make_job(options, folder, packing), folder, on_gpu)["seconds"]
                speeds[name].append(options.examples / seconds)
    return {"examples_per_second": speeds, "best": {name: max(found) for name, found in speeds.items()}}


def report(found: dict[str, Any], options: argparse.Namespace) -> None:
    """Prints the results."""
    best = found["best"]
    found["ray / torchrun"] = best["Ray Train"] / best["torchrun"]
    found["packed / padded"] = best["Ray Train, packed"] / best["Ray Train"]
    if options.json:
        print(json.dumps(found))
        return
    table = Table("fine-tune", "examples per second", "all rounds")
    for name, speed in best.items():
        table.add_row(name, f"{speed:.1f}", ", ".join(f"{one:.1f}" for one in found["examples_per_second"][name]))
    console = Console()
    console.print(table)
    console.print(
        f"Ray Train / torchrun: {found['ray / torchrun']:.3f}   packed / padded: {found['packed / padded']:.2f}"
    )


if __name__ == "__main__":
    main()
