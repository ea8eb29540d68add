"""A model's identity: a hash of everything that determines its answers."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from safecomm.storage import shared
from safecomm.storage.checksums import file_digest
from safecomm.storage.hub_cache import WANTED, blob_digest
from safecomm.storage.input_files import read_json
from safecomm.storage.names import LINEAGE
from safecomm.storage.store import Store, digest, write_json

ALWAYS_HASHED = 1 << 30
"""Size limit in bytes; the hashes of larger files are stored, because 140 GB take minutes."""
THREADS = 8


def identity(folder: Path, store: Store) -> str:
    """Returns a hash of a model's weights, configuration, tokenizer and chat template.

    It depends only on the contents of the files, not on where and when they were downloaded.

    Args:
        folder: the model's folder.
        store: stores the hashes of large files.
    """
    files = sorted(
        {path for pattern in WANTED for path in folder.glob(pattern) if path.name != LINEAGE and path.is_file()}
    )
    with ThreadPoolExecutor(THREADS) as pool:
        digests = pool.map(lambda path: _digest(path, store), files)
        return digest([[path.name, content] for path, content in zip(files, digests, strict=True)])


def _digest(path: Path, store: Store) -> str:
    """Returns 16 hex digits of a file's SHA-256; for a large file from the Hub's cache or the store, if known."""
    state = path.stat()
    if state.st_size <= ALWAYS_HASHED:
        return file_digest(path)
    if known := blob_digest(path):
        return known
    file = {"path": str(path), "size": state.st_size, "changed": state.st_mtime_ns}
    entry = store.root / "digests" / f"{digest(file)}.json"
    shared.fetch(entry)
    try:
        return str(read_json(entry)["digest"])
    except (OSError, ValueError, TypeError, KeyError):  # missing or damaged
        found = file_digest(path)
    write_json(entry, file | {"digest": found})
    shared.publish(entry)
    return found
