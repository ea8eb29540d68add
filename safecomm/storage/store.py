"""Content-addressed store of finished stage outputs.

A stage's key is a hash of all its inputs. Its folder `<root>/<stage>/<key>/` is created atomically, with a
`lineage.json` that records the inputs and the files' checksums. Concurrent requests for the same stage wait for one
computation. If the store is in a bucket, each node caches the stages that it uses.
"""

import hashlib
import json
import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from safecomm.errors import StorageError
from safecomm.storage import shared
from safecomm.storage.checksums import checksums, damage
from safecomm.storage.disk import report_disk_full
from safecomm.storage.hub_cache import is_snapshot, node_copy
from safecomm.storage.names import LINEAGE
from safecomm.storage.output_files import whole_file

logger = logging.getLogger(__name__)


def digest(value: object) -> str:
    """Returns a 16-digit hex hash of a JSON value; key order does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_json(path: Path, value: object) -> None:
    """Writes JSON atomically (see `write_text`)."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically: a reader sees either the old file or the new one.

    Raises:
        DiskFullError: if the disk is full.
    """
    with whole_file(path) as half:
        half.write_text(text, encoding="utf-8")


def without_nan(value: Any) -> Any:
    """Replaces NaN, which JSON lacks, by None in a JSON value."""
    if isinstance(value, dict):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


class Store:
    """A store of finished stages in a folder."""

    def __init__(self, root: str | Path):
        self.root = Path(root).expanduser().resolve()

    @classmethod
    def of(cls, storage: str) -> "Store":
        """Returns the store in a sweep's `storage`."""
        return cls(shared.local_folder(storage) / "store")

    def folder(self, stage: str, key: str) -> Path:
        """Returns the path of a stage's output, whether or not it exists."""
        return self.root / stage / key

    def find(self, stage: str, key: str) -> Path | None:
        """Returns the finished stage's folder, or None if it does not exist or is damaged."""
        folder = self.folder(stage, key)
        if not folder.is_dir():
            return folder if _fetch(folder) else None
        return folder if not _damage(folder, key) and shared.is_published(folder / LINEAGE) else None

    def obtain(self, stage: str, inputs: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
        """Returns the folder of a finished stage; computes it with `make` if it is not in the store.

        A damaged folder (see `checksums.damage`) is quarantined and recomputed.

        Args:
            stage: the stage's name, e.g. `finetune`.
            inputs: everything that determines the output, as JSON values; their digest is the stage's key.
            make: fills an empty folder; if it raises, the store is unchanged.

        Raises:
            DiskFullError: if the disk is full.
        """
        key = digest(inputs)
        if found := self.find(stage, key):
            return found
        with report_disk_full(self.root), shared.exclusive(self.scratch / f"{stage}-{key}.lock"):
            if found := self.find(stage, key):
                return found
            folder = self.folder(stage, key)
            if folder.is_dir():
                self.quarantine(folder, _damage(folder, key) or "it is missing from the bucket")
                if found := self.find(stage, key):  # only the local copy was damaged
                    return found
            self._make(stage, inputs, make)
        return folder

    @property
    def scratch(self) -> Path:
        """The folder for locks, unfinished stages and quarantined files."""
        folder = self.root / "scratch"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def quarantine(self, path: Path, reason: str) -> None:
        """Moves a damaged folder or file to the scratch folder and logs a warning."""
        place = Path(tempfile.mkdtemp(prefix=f"damaged-{path.parent.name}-", dir=self.scratch))
        try:
            path.rename(place / path.name)
        except FileNotFoundError:  # another process has moved it
            place.rmdir()
            return
        logger.warning("%s is damaged (%s); moved it to %s and recomputing it", path, reason, place)
        (place / "reason.txt").write_text(f"{path}: {reason}\n", encoding="utf-8")

    def _make(self, stage: str, inputs: Mapping[str, Any], make: Callable[[Path], None]) -> None:
        key = digest(inputs)
        half = Path(tempfile.mkdtemp(prefix=f"{stage}-{key}-", dir=self.scratch))
        try:
            with report_disk_full(self.root):  # measures free space before the unfinished folder is removed
                started = time.time()
                make(half)
                spent = {
                    "seconds": round(time.time() - started, 2),
                    "finished": datetime.now(UTC).isoformat("T", "seconds"),
                }
                made = {"stage": stage, "key": key, "inputs": dict(inputs), **spent}
                write_json(half / LINEAGE, made | {"files": checksums(half)})
            folder = self.folder(stage, key)
            shared.publish_tree(folder, half, last=LINEAGE)
            _move(half, folder)
        finally:
            shutil.rmtree(half, ignore_errors=True)


def lineage(folder: Path) -> dict[str, Any]:
    """Returns the lineage of a stage's folder: stage, key, inputs, seconds, when it finished, and file checksums."""
    value: dict[str, Any] = json.loads((folder / LINEAGE).read_text(encoding="utf-8"))
    return value


def local_copy(path: Path) -> Path:
    """Returns this node's path for one in a finished stage or a Hub cache; downloads the stage or model if needed.

    Raises:
        StorageError: if the bucket does not have the stage.
        ModelError: if the Hub does not have the model.
    """
    if is_snapshot(path):
        return node_copy(path)
    if path.exists() or not shared.is_copy(path):
        return path
    copy = shared.local_folder(address := shared.address(path))  # the other node's mirror may have another root
    for folder in (copy, *copy.parents[:2]):
        if copy.exists() or _fetch(folder):
            return copy
    raise StorageError(f"storage: {address} is missing or damaged; run the sweep again to recompute it")


def _fetch(folder: Path) -> bool:
    """Downloads a finished stage once per node; returns whether it exists and is intact."""
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


def stage_damage(folder: Path) -> str:
    """Returns why a finished stage's folder is damaged, or ""; all of its files are hashed, however large."""
    return _damage(folder, folder.name, is_thorough=True)


def _damage(folder: Path, key: str, is_thorough: bool = False) -> str:
    """Returns why a stage's folder is damaged, or "". Folders of old versions have no checksums and are accepted."""
    try:
        record = lineage(folder)
        if record["key"] != key:
            return f"{LINEAGE} belongs to another folder"
        return damage(folder, record.get("files", {}), is_thorough)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # unreadable or malformed
        return f"{LINEAGE} or a file can't be read: {error}"
