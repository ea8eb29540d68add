"""Storage shared by the nodes of a cluster: one mounted folder, or a bucket that each node mirrors locally.

All code works on local paths: in the mounted folder itself or, for `s3://BUCKET/PREFIX`, in the local mirror
`~/.cache/safecomm/s3@BUCKET/PREFIX`. A mirror path encodes its object's URL, so it means the same on every node. These
functions publish local files to the bucket and fetch other nodes' files; for a mounted folder they do nothing. No
other module needs to know about buckets.
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
"""Environment variable that replaces `~/.cache/safecomm` as the mirror's folder; the same on every node."""
NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
"""A bucket's name. URLs with embedded credentials are rejected because `storage` is written to files."""
COPY = re.compile(rf"({'|'.join(SCHEMES)})@({NAME.pattern})")


def local_folder(storage: str | Path) -> Path:
    """Returns the local folder of a storage setting: the folder itself, or the local mirror of a bucket.

    Raises:
        UsageError: if `storage` is neither a folder nor a bucket URL.
    """
    scheme, separator, rest = str(storage).partition("://")
    if not separator:
        return Path(storage).expanduser().resolve()
    bucket, _, prefix = rest.strip("/").partition("/")
    if scheme not in SCHEMES or not NAME.fullmatch(bucket) or ".." in prefix.split("/"):
        raise UsageError("storage: must be a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX")
    return mirrors() / f"{scheme}@{bucket}" / prefix


def mirrors() -> Path:
    """Returns the folder of the buckets' mirrors."""
    return Path(os.environ.get(CACHE) or "~/.cache/safecomm").expanduser().resolve()


def mounted_folder(storage: str) -> str | None:
    """Returns the folder that all nodes must mount, or None if the storage is a bucket."""
    folder = local_folder(storage)  # validates the setting
    return None if "://" in storage else str(folder)


def address(path: Path) -> str:
    """Returns an address that is valid on every node: the path itself, or its URL in the bucket."""
    found = _object(path)
    return f"{found[0].url}/{found[1]}" if found else str(path)


def is_copy(path: Path) -> bool:
    """Returns whether a path lies in the local mirror of a bucket."""
    return _object(path) is not None


def is_published(path: Path) -> bool:
    """Returns whether a file is visible to all nodes."""
    found = _object(path)
    return not found or found[0].has(found[1])


def publish(path: Path) -> None:
    """Uploads a file so that other nodes see it."""
    if found := _object(path):
        found[0].upload({found[1]: path})


def publish_tree(folder: Path, source: Path, last: str) -> None:
    """Uploads a folder tree, replacing the published one.

    Args:
        folder: the folder's final path.
        source: the folder's current path on this node.
        last: the file to upload last; its presence means that the folder is complete.
    """
    if found := _object(folder):
        bucket, name = found
        names, final = _files(name, source), f"{name}/{last}"
        bucket.remove(final, *bucket.names(name))
        bucket.upload({there: file for there, file in names.items() if there != final})
        bucket.upload({final: names[final]})


def publish_parts(folder: Path) -> None:
    """Uploads a folder tree, keeping the files that other nodes have published there."""
    if found := _object(folder):
        found[0].upload(_files(found[1], folder))


def fetch(path: Path) -> None:
    """Downloads a file, or the files directly in a folder; skips files that are up to date."""
    if found := _object(path):
        bucket, name = found
        there = bucket.files(name)
        wanted = [one for one, state in there.items() if not _is_fetched(path / one, *state)]
        bucket.download({f"{name}/{one}": path / one for one in wanted} if there else {name: path})


def fetch_tree(folder: Path, into: Path) -> None:
    """Downloads a folder tree into another local folder."""
    if found := _object(folder):
        bucket, name = found
        bucket.download({one: into / one.removeprefix(f"{name}/") for one in bucket.names(name)})


def prune(folder: Path) -> None:
    """Removes local files in a folder that no longer exist in the bucket."""
    if found := _object(folder):
        there = found[0].files(found[1])
        for file in [file for file in folder.glob("[!.]*") if file.is_file() and file.name not in there]:
            file.unlink(missing_ok=True)


def unpublish(folder: Path) -> None:
    """Removes the published files of a folder tree; local files stay."""
    if found := _object(folder):
        found[0].remove(*found[0].names(found[1]))


def reject(path: Path) -> None:
    """Removes a damaged published file, provided the local copy is unchanged since it was fetched."""
    if found := _object(path):
        bucket, name = found
        there = bucket.files(name.rpartition("/")[0]).get(path.name)
        if there and _is_fetched(path, *there):
            bucket.remove(name)


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Holds an exclusive lock across all nodes; waits until it is free."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):  # the system releases it when the holder dies
        if not (found := _object(lock)):
            yield
            return
        with waiting_lock(ObjectLeaseRecords(*found)):
            yield


def lease_records(lock: Path) -> LeaseRecords:
    """Returns the lease records of a lock that is shared by all nodes."""
    return ObjectLeaseRecords(*found) if (found := _object(lock)) else FileLeaseRecords(lock)


def _object(path: Path) -> tuple[Bucket, str] | None:
    """Returns the bucket and object name of a mirror path, or None for a path outside the mirror."""
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
