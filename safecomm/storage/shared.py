"""What the nodes of a cluster share: one folder that all of them see, or a bucket of which each keeps a copy.

`storage` is given as either. Everything works on local paths: in the folder itself or, for `s3://BUCKET/PREFIX`, in
`~/.cache/safecomm/s3@BUCKET/PREFIX`, where a path tells the object that it stands for, on every node. What is written
there is published, and what others wrote fetched, with these functions; in a folder that all see they have nothing to
do. Nothing else knows of buckets.
"""

import functools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from safecomm.errors import UsageError
from safecomm.storage.bucket import SCHEMES, Bucket
from safecomm.storage.lease_records import FileLeaseRecords, LeaseRecords, ObjectLeaseRecords
from safecomm.storage.lock import waiting_lock

CACHE = "SAFECOMM_CACHE"
"""Names the folder of the copies, the same on every node, where `~/.cache/safecomm` will not do."""
NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
"""A bucket's name; a key or a password before it is refused, as storage is written into files."""
COPY = re.compile(rf"({'|'.join(SCHEMES)})@({NAME.pattern})")


def local_folder(storage: str | Path) -> Path:
    """Returns where this node has a storage: the folder itself, or its copy of a bucket.

    Raises:
        UsageError: where it is neither.
    """
    scheme, separator, rest = str(storage).partition("://")
    if not separator:
        return Path(storage).expanduser().resolve()
    bucket, _, prefix = rest.strip("/").partition("/")
    if scheme not in SCHEMES or not NAME.fullmatch(bucket) or ".." in prefix.split("/"):
        raise UsageError("storage: give a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX; nothing else is known")
    cache = Path(os.environ.get(CACHE) or "~/.cache/safecomm").expanduser().resolve()
    return cache / f"{scheme}@{bucket}" / prefix


def mounted_folder(storage: str) -> str | None:
    """Returns the folder that all nodes are to see; None where the storage is a bucket."""
    folder = local_folder(storage)  # which refuses what is neither
    return None if "://" in storage else str(folder)


def address(path: Path) -> str:
    """Returns where every node finds a path: the path itself, or its URL in the bucket."""
    found = _object(path)
    return f"{found[0].url}/{found[1]}" if found else str(path)


def is_copy(path: Path) -> bool:
    """Tells whether a path is this node's copy of something in a bucket."""
    return _object(path) is not None


def is_published(path: Path) -> bool:
    """Tells whether a file that is here, or may be, is there for all nodes."""
    found = _object(path)
    return not found or found[0].has(found[1])


def publish(path: Path) -> None:
    """Shows a file to the other nodes."""
    if found := _object(path):
        found[0].upload({found[1]: path})


def publish_tree(folder: Path, source: Path, last: str) -> None:
    """Shows all files below a folder to the other nodes, in the place of what they saw there before.

    Args:
        folder: where they will find it.
        source: where it still is on this node.
        last: the file that comes after all others: with it, and not before, the folder is whole.
    """
    if found := _object(folder):
        bucket, name = found
        names, final = _files(name, source), f"{name}/{last}"
        bucket.remove(final, *bucket.names(name))
        bucket.upload({there: file for there, file in names.items() if there != final})
        bucket.upload({final: names[final]})


def publish_parts(folder: Path) -> None:
    """Shows all files below a folder to the other nodes, beside those that they published of it."""
    if found := _object(folder):
        found[0].upload(_files(found[1], folder))


def fetch(path: Path) -> None:
    """Brings a file, or those directly in a folder, to this node as they are now, unless it has them already."""
    if found := _object(path):
        bucket, name = found
        there = bucket.files(name)
        wanted = [one for one, state in there.items() if not _is_fetched(path / one, *state)]
        bucket.download({f"{name}/{one}": path / one for one in wanted} if there else {name: path})


def fetch_tree(folder: Path, into: Path) -> None:
    """Brings all files below a folder to another one on this node."""
    if found := _object(folder):
        bucket, name = found
        bucket.download({one: into / one.removeprefix(f"{name}/") for one in bucket.names(name)})


def prune(folder: Path) -> None:
    """Removes the files of a folder that the bucket lacks: this node's copies of what somebody removed there."""
    if found := _object(folder):
        there = found[0].files(found[1])
        for file in [file for file in folder.glob("[!.]*") if file.is_file() and file.name not in there]:
            file.unlink(missing_ok=True)


def unpublish(folder: Path) -> None:
    """Removes the published files below a folder; those on this node stay."""
    if found := _object(folder):
        found[0].remove(*found[0].names(found[1]))


def reject(path: Path) -> None:
    """Removes a published file that turned out to be damaged, if this node's copy is just as it was fetched."""
    if found := _object(path):
        bucket, name = found
        there = bucket.files(name.rpartition("/")[0]).get(path.name)
        if there and _is_fetched(path, *there):
            bucket.remove(name)


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Waits until nobody else, on whatever node, is in such a block under the same path."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):  # the system frees it when its holder dies
        if not (found := _object(lock)):
            yield
            return
        with waiting_lock(ObjectLeaseRecords(*found)):
            yield


def lease_records(lock: Path) -> LeaseRecords:
    """Returns where the marks of a lock lie that processes on all nodes can take."""
    return ObjectLeaseRecords(*found) if (found := _object(lock)) else FileLeaseRecords(lock)


def _object(path: Path) -> tuple[Bucket, str] | None:
    """Returns the bucket and the name that a path stands for; None in a folder that all nodes see."""
    for place, part in enumerate(path.parts):
        if found := COPY.fullmatch(part):
            return _bucket(found[1], found[2]), "/".join(path.parts[place + 1 :])
    return None


def _files(name: str, folder: Path) -> dict[str, Path]:
    return {f"{name}/{file.relative_to(folder).as_posix()}": file for file in folder.rglob("*") if file.is_file()}


@functools.cache
def _bucket(scheme: str, name: str) -> Bucket:
    return Bucket(scheme, name)


def _is_fetched(path: Path, size: int, stamp: int) -> bool:
    try:
        state = path.stat()
    except FileNotFoundError:
        return False
    return (state.st_size, state.st_mtime_ns) == (size, stamp)
