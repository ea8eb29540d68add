"""A fine-tune's checkpoints: which of them are whole and, where its ranks share no folder, how they come to each node.

There each node's part is published, and all parts fetched; in a folder that all nodes see neither is needed, nor done.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from safecomm.storage import shared
from safecomm.storage.store import write_json

NEWEST = "newest.json"
"""Names the last checkpoint that every node has published its part of."""


def drop_halves(checkpoints: Path, ranks: int) -> None:
    """Removes checkpoints that were being written when a rank died: transformers would go on from them, and fail.

    A whole one has each rank's random state, and the trainer's state, which rank 0 writes last.
    """
    for folder in checkpoints.glob("checkpoint-*"):
        if len(list(folder.glob("rng_state*.pth"))) < ranks or not _is_json(folder / "trainer_state.json"):
            shutil.rmtree(folder, ignore_errors=True)


def last_step(checkpoints: Path) -> int:
    """Returns the step of the newest checkpoint, 0 where there is none."""
    return max((int(folder.name.rpartition("-")[2]) for folder in checkpoints.glob("checkpoint-*")), default=0)


def newest(checkpoints: Path) -> str | None:
    """Returns the last whole checkpoint, brought to this node; None where there is none. All ranks call it."""
    import ray.train
    import torch
    from transformers.trainer_utils import get_last_checkpoint

    if shared.is_copy(checkpoints):
        if ray.train.get_context().get_local_rank() == 0:
            _bring(checkpoints)
        torch.distributed.barrier()
    found: str | None = get_last_checkpoint(str(checkpoints))
    return found


def _bring(checkpoints: Path) -> None:
    """Leaves the last whole checkpoint in this node's folder, and no other."""
    shutil.rmtree(checkpoints, ignore_errors=True)
    checkpoints.mkdir(parents=True)
    shared.fetch(checkpoints)
    if (checkpoints / NEWEST).is_file():
        name = json.loads((checkpoints / NEWEST).read_text(encoding="utf-8"))["name"]
        shared.fetch_tree(checkpoints / name, checkpoints / name)


def publishing_callback(checkpoints: Path) -> Any:
    """Returns a callback of transformers that publishes each checkpoint; every rank calls it."""
    import ray.train
    import torch
    from transformers import TrainerCallback

    class Publish(TrainerCallback):  # type: ignore[misc]
        """One rank a node publishes what lies on the node; once all have, the checkpoint is the newest."""

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if not shared.is_copy(checkpoints):
                return
            context, name = ray.train.get_context(), f"checkpoint-{state.global_step}"
            torch.distributed.barrier()  # each rank has written its part
            if context.get_local_rank() == 0 and (checkpoints / name).is_dir():
                shared.publish_parts(checkpoints / name)
            torch.distributed.barrier()
            if context.get_world_rank() == 0:
                before = _named(checkpoints)
                write_json(checkpoints / NEWEST, {"name": name})
                shared.publish(checkpoints / NEWEST)
                if before and before != name:
                    shared.unpublish(checkpoints / before)

    return Publish()


def _named(checkpoints: Path) -> str:
    path = checkpoints / NEWEST
    return str(json.loads(path.read_text(encoding="utf-8"))["name"]) if path.is_file() else ""


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True
