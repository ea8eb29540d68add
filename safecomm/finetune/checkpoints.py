"""Checkpoints of a fine-tune: completeness checks, and synchronization through a bucket.

If the storage is a bucket, each node publishes its part of a checkpoint and fetches all parts to resume. In a mounted
folder this is unnecessary and does nothing.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from safecomm.storage import shared
from safecomm.storage.store import write_json

NEWEST = "newest.json"
"""Names the newest checkpoint that is complete in the bucket."""


def drop_incomplete(checkpoints: Path, ranks: int) -> None:
    """Removes incomplete checkpoints, which a dying rank leaves behind; transformers would fail to resume from them.

    A complete checkpoint has every rank's RNG state, and the trainer state, which rank 0 writes last.
    """
    for folder in checkpoints.glob("checkpoint-*"):
        if len(list(folder.glob("rng_state*.pth"))) < ranks or not _is_json(folder / "trainer_state.json"):
            shutil.rmtree(folder, ignore_errors=True)


def last_step(checkpoints: Path) -> int:
    """Returns the step of the newest checkpoint, or 0 if there is none."""
    return max((int(folder.name.rpartition("-")[2]) for folder in checkpoints.glob("checkpoint-*")), default=0)


def newest(checkpoints: Path) -> str | None:
    """Returns the newest complete checkpoint as a local path, or None; all ranks must call it."""
    import ray.train
    import torch
    from transformers.trainer_utils import get_last_checkpoint

    if shared.is_copy(checkpoints):
        if ray.train.get_context().get_local_rank() == 0:
            _download(checkpoints)
        torch.distributed.barrier()
    found: str | None = get_last_checkpoint(str(checkpoints))
    return found


def _download(checkpoints: Path) -> None:
    """Replaces the local checkpoints with the newest complete one from the bucket."""
    shutil.rmtree(checkpoints, ignore_errors=True)
    checkpoints.mkdir(parents=True)
    shared.fetch(checkpoints)
    if (checkpoints / NEWEST).is_file():
        name = json.loads((checkpoints / NEWEST).read_text(encoding="utf-8"))["name"]
        shared.fetch_tree(checkpoints / name, checkpoints / name)


def publishing_callback(checkpoints: Path) -> Any:
    """Returns a transformers callback that publishes each checkpoint; all ranks must install it."""
    import ray.train
    import torch
    from transformers import TrainerCallback

    class Publish(TrainerCallback):  # type: ignore[misc]
        """Publishes the node's part from one rank per node, then marks the checkpoint as newest."""

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if not shared.is_copy(checkpoints):
                return
            context, name = ray.train.get_context(), f"checkpoint-{state.global_step}"
            torch.distributed.barrier()  # wait until every rank has written its part
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
