"""Finished stage outputs, addressed by a hash of everything that went into them.

A stage's folder `<root>/<stage>/<key>/` appears whole or not at all, with a `lineage.json` that names its inputs and
the checksums of its files. Whoever asks for the same stage while it is being made waits for it instead of making it
twice. Where the store is in a bucket, each node has copies of the stages that it used.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from safecomm.errors import StorageError, UsageError
from safecomm.storage import shared
from safecomm.storage.checksums import checksums, damage
from safecomm.storage.disk import report_disk_full
from safecomm.storage.names import LINEAGE

logger = logging.getLogger(__name__)


def digest(value: object) -> str:
    """Returns 16 hex digits that stand for a JSON-able value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_json(path: Path, value: object) -> None:
    """Writes JSON so that a reader sees the old file or the new one, never half of it.

    Raises:
        DiskFullError: where the disk is full.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    half = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with report_disk_full(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            half.write_text(text, encoding="utf-8")
            half.replace(path)
    finally:
        half.unlink(missing_ok=True)


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
        self.root = Path(root).expanduser().resolve()

    @classmethod
    def of(cls, storage: str) -> "Store":
        """Returns the store that a sweep's `storage` holds."""
        return cls(shared.local_folder(storage) / "store")

    def folder(self, stage: str, key: str) -> Path:
        """Returns where the stage's output is, or would be."""
        return self.root / stage / key

    def find(self, stage: str, key: str) -> Path | None:
        """Returns the finished stage's folder, or None where it has not been made or its files are damaged."""
        folder = self.folder(stage, key)
        if not folder.is_dir():
            return folder if _fetch(folder) else None
        return folder if not _damage(folder, key) and shared.is_published(folder / LINEAGE) else None

    def obtain(self, stage: str, inputs: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
        """Returns the folder of a finished stage, which `make` fills where it is not in the store yet.

        A folder whose files are not as they were written (see `checksums.damage`) is set aside and made again.

        Args:
            stage: the stage's name, e.g. `finetune`.
            inputs: all that decides the output, JSON-able; its digest is the stage's key.
            make: fills the empty folder that it is given; whatever it raises leaves nothing behind.

        Raises:
            DiskFullError: where the disk is full.
        """
        key = digest(inputs)
        if found := self.find(stage, key):
            return found
        with report_disk_full(self.root), shared.exclusive(self.scratch / f"{stage}-{key}.lock"):
            if found := self.find(stage, key):
                return found
            folder = self.folder(stage, key)
            if folder.is_dir():
                self.quarantine(folder, _damage(folder, key) or "the bucket lacks it")
                if found := self.find(stage, key):  # only this node's copy was damaged
                    return found
            self._make(stage, inputs, make)
        return folder

    @property
    def scratch(self) -> Path:
        """The folder of locks, of what is being made and of what was set aside."""
        folder = self.root / "scratch"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def quarantine(self, path: Path, reason: str) -> None:
        """Moves a damaged folder or file of the store to its scratch folder, with a warning."""
        place = Path(tempfile.mkdtemp(prefix=f"damaged-{path.parent.name}-", dir=self.scratch))
        try:
            path.rename(place / path.name)
        except FileNotFoundError:  # somebody else did, meanwhile
            place.rmdir()
            return
        logger.warning("%s is damaged (%s); it was set aside in %s and is made again", path, reason, place)
        (place / "reason.txt").write_text(f"{path}: {reason}\n", encoding="utf-8")

    def _make(self, stage: str, inputs: Mapping[str, Any], make: Callable[[Path], None]) -> None:
        key = digest(inputs)
        half = Path(tempfile.mkdtemp(prefix=f"{stage}-{key}-", dir=self.scratch))
        try:
            with report_disk_full(self.root):  # before the half is removed, which gives room
                started = time.time()
                make(half)
                made = {"stage": stage, "key": key, "inputs": dict(inputs), "seconds": round(time.time() - started, 2)}
                write_json(half / LINEAGE, made | {"files": checksums(half)})
            folder = self.folder(stage, key)
            shared.publish_tree(folder, half, last=LINEAGE)
            _move(half, folder)
        finally:
            shutil.rmtree(half, ignore_errors=True)


def lineage(folder: Path) -> dict[str, Any]:
    """Returns what a stage's folder was made from."""
    value: dict[str, Any] = json.loads((folder / LINEAGE).read_text(encoding="utf-8"))
    return value


def local_copy(path: Path) -> Path:
    """Returns where a path in a finished stage is on this node, brought from the bucket if another node made it.

    Raises:
        StorageError: where the bucket has no such stage.
    """
    if path.exists() or not shared.is_copy(path):
        return path
    copy = shared.local_folder(address := shared.address(path))  # the other node may keep its copies elsewhere
    for folder in (copy, *copy.parents[:2]):
        if copy.exists() or _fetch(folder):
            return copy
    raise StorageError(f"storage: {address} is gone, or damaged; run the sweep again to make it anew")


def _fetch(folder: Path) -> bool:
    """Copies a finished stage to this node, once; tells whether there is such a one, with all its files as written."""
    if not shared.is_copy(folder) or not shared.is_published(folder / LINEAGE):
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if folder.is_dir():
            return True
        half = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            shared.fetch_tree(folder, half)
            if reason := _damage(half, folder.name):
                logger.warning("%s is damaged (%s)", shared.address(folder), reason)
                return False
            for name, was in lineage(half).get("files", {}).items():
                os.utime(half / name, ns=(was["changed"], was["changed"]))
            _move(half, folder)
        finally:
            shutil.rmtree(half, ignore_errors=True)
    return True


def _move(half: Path, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    half.chmod(0o755)
    half.rename(folder)


def _damage(folder: Path, key: str) -> str:
    """Tells what is wrong with a stage's folder, or "". One of before has no checksums and is taken as it is."""
    try:
        record = lineage(folder)
        if record["key"] != key:
            return f"{LINEAGE} is that of another folder"
        return damage(folder, record.get("files", {}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # unreadable, or not what we write
        return f"{LINEAGE} or a file can't be read: {error}"
