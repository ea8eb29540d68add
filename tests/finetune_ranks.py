"""One rank of several small fine-tunes, one after the other in one process: `python finetune_ranks.py CASES OUT`.

Each runs with the trainer of a Ray Train worker. The bytes that this rank holds are written to OUT.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from safecomm.finetune.job import FinetuneJob


@dataclass
class Held:
    """The bytes that this rank holds of a fine-tune."""

    loaded: int = 0
    """The loaded model, before DeepSpeed wraps it."""
    weights: int = 0
    gradients: int = 0
    """In the type of the weights before the optimizer steps, and in fp32 while it does."""
    optimizer: int = 0
    copied: int = 0
    """Copies of weights outside the adapter, made to save it."""
    answers: int = 0
    """Tokens that count in the loss."""
    losses: list[float] = field(default_factory=list)


def size(tensors: Iterable[torch.Tensor | None]) -> int:
    """Returns the bytes of tensors; shared memory counts once."""
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors if tensor is not None}.values())


def flat(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for one in value for tensor in flat(one)] if isinstance(value, list | tuple) else []


def shards(model: Any) -> list[torch.Tensor]:
    return [getattr(parameter, "ds_tensor", parameter) for parameter in model.parameters()]


def watch(engine: Any, held: Held) -> None:
    """Records the held bytes at every optimizer step."""
    outer, inner, step = engine.optimizer, engine.basic_optimizer, engine.step
    reduced = [0]

    def before(*arguments: Any, **options: Any) -> Any:
        gradients = [parameter.grad for parameter in engine.module.parameters()]
        reduced[0] = size([*gradients, *flat(getattr(outer, "averaged_gradients", []))])
        return step(*arguments, **options)

    def within(*_: Any) -> None:
        masters = [tensor for group in inner.param_groups for tensor in group["params"]]
        held.weights = size(shards(engine.module))
        held.optimizer = size([*masters, *flat(list(inner.state.values()))])
        held.gradients = reduced[0] + size(tensor.grad for tensor in masters)

    engine.step = before
    inner.register_step_pre_hook(within)


def run(job: FinetuneJob, out: Path) -> Held:
    from accelerate.state import AcceleratorState
    from transformers import TrainerCallback

    from safecomm.finetune.worker import make_trainer

    AcceleratorState._reset_state(reset_partial_state=True)
    held = Held()

    class Watch(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            watch(trainer.model_wrapped, held)

    trainer = make_trainer(job, str(out / "checkpoints"))
    held.loaded = size(shards(trainer.model))
    held.answers = sum(label != -100 for row in trainer.train_dataset["labels"] for label in row)
    trainer.add_callback(Watch())
    gather = trainer.accelerator.get_state_dict

    def copies(*arguments: Any, **options: Any) -> Any:
        state = gather(*arguments, **options)
        held.copied += size(tensor for name, tensor in state.items() if "lora_" not in name)
        return state

    trainer.accelerator.get_state_dict = copies
    trainer.train()
    trainer.save_model(str(out))
    held.losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return held


def launch(cases: dict[str, Any], out: Path, ranks: int) -> None:
    """Runs the cases, each a FinetuneJob's fields; if a rank fails, fails with the output of the first that did."""
    (out / "cases.json").write_text(json.dumps(cases))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = os.environ | {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    running = []
    for rank in range(ranks):
        with (out / f"rank{rank}.log").open("w") as log:
            running.append(
                subprocess.Popen(
                    [sys.executable, __file__, str(out / "cases.json"), str(out)],
                    env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank), "DS_ACCELERATOR": "cpu"},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
    try:
        while None in (codes := [rank.poll() for rank in running]) and not any(
            codes
        ):  # one that fails leaves others waiting
            time.sleep(0.2)
    finally:
        for rank in running:
            rank.kill()
    failed = [number for number, code in enumerate(codes) if code]
    assert not failed, (out / f"rank{failed[0]}.log").read_text()[-3000:]


if __name__ == "__main__":
    cases, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    for name, case in cases.items():
        (out / name).mkdir(exist_ok=True)
        result = asdict(run(FinetuneJob(**case), out / name))
        rank = torch.distributed.get_rank()
        (out / name / f"rank{rank}.json").write_text(json.dumps(result))
        print(name, rank, result, flush=True)
