"""Finished stage outputs, addressed by a hash of everything that went into them.

A stage's folder `<root>/<stage>/<key>/` appears whole or not at all, with a `lineage.json` that names its inputs.
Whoever asks for the same stage while it is being made waits for it instead of making it twice.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from safecomm.errors import UsageError

LINEAGE = "lineage.json"


def digest(value: object) -> str:
    """Returns 16 hex digits that stand for a JSON-able value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Returns 16 hex digits that stand for a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def write_json(path: Path, value: object) -> None:
    """Writes JSON so that a reader sees the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.getpid()}")
    half.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    half.replace(path)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Gives a folder to fill, which appears under its name once it is filled, whole or not at all.

    Raises:
        UsageError: where the folder exists and is not empty, or can't be made.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: exists already; name another folder to write to, or remove it")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        half = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise UsageError(f"{folder}: can't be written: {error.strerror}; name another folder to write to") from error
    try:
        yield half
        half.chmod(0o755)
        half.replace(folder)
    finally:
        shutil.rmtree(half, ignore_errors=True)


class Store:
    """A folder of finished stages."""

    def __init__(self, root: str | Path):
        if "://" in str(root):
            raise UsageError(f"storage: {root} is a bucket; give a folder that every node of the cluster sees")
        self.root = Path(root).expanduser().resolve()

    def folder(self, stage: str, key: str) -> Path:
        """Returns where the stage's output is, or would be."""
        return self.root / stage / key

    def find(self, stage: str, key: str) -> Path | None:
        """Returns the finished stage's folder, or None where it has not been made."""
        folder = self.folder(stage, key)
        return folder if (folder / LINEAGE).is_file() else None

    def obtain(self, stage: str, inputs: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
        """Returns the folder of a finished stage, which `make` fills where it is not in the store yet.

        Args:
            stage: the stage's name, e.g. `finetune`.
            inputs: all that decides the output, JSON-able; its digest is the stage's key.
            make: fills the empty folder that it is given; whatever it raises leaves nothing behind.
        """
        key = digest(inputs)
        if found := self.find(stage, key):
            return found
        scratch = self.root / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        with FileLock(scratch / f"{stage}-{key}.lock"):  # the system frees it when its holder dies
            if found := self.find(stage, key):
                return found
            half = Path(tempfile.mkdtemp(prefix=f"{stage}-{key}-", dir=scratch))
            try:
                started = time.time()
                make(half)
                lineage = {
                    "stage": stage,
                    "key": key,
                    "inputs": dict(inputs),
                    "seconds": round(time.time() - started, 2),
                }
                write_json(half / LINEAGE, lineage)
                folder = self.folder(stage, key)
                folder.parent.mkdir(parents=True, exist_ok=True)
                half.chmod(0o755)
                half.rename(folder)
            finally:
                shutil.rmtree(half, ignore_errors=True)
        return folder


def lineage(folder: Path) -> dict[str, Any]:
    """Returns what a stage's folder was made from."""
    value: dict[str, Any] = json.loads((folder / LINEAGE).read_text(encoding="utf-8"))
    return value
