"""A client for the bucket operations that a store needs: S3-compatible storage and Google Cloud Storage.

Credentials, region and endpoint come only from the environment (`AWS_*`, `GOOGLE_*`, the node's role).
"""

import os
import re
import uuid
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from safecomm.errors import StorageError, UsageError

SCHEMES = ("s3", "gs")
CONCURRENCY = 8
"""Concurrent transfers."""
CHUNK = 16 << 20
RETRIES: Any = {"max_retries": 6, "retry_timeout": timedelta(seconds=60)}
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the machine's role, and AWS_REGION",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or the machine's service account",
}


class Bucket:
    """One bucket. Every method raises StorageError if the bucket is unusable."""

    def __init__(self, scheme: str, name: str):
        """Creates the client without contacting the server.

        Args:
            scheme: `s3` or `gs`.
            name: the bucket's name.

        Raises:
            UsageError: if the bucket client package is not installed.
        """
        self.url = f"{scheme}://{name}"
        self._scheme = scheme
        try:
            import obstore.store
        except ImportError as error:
            raise UsageError(
                f"storage: {self.url} is a bucket, which needs an extra package: pip install 'safecomm[bucket]'"
            ) from error
        options: Any = {"allow_http": os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")}
        self._store = obstore.store.from_url(self.url, client_options=options, retry_config=RETRIES)

    def names(self, prefix: str) -> list[str]:
        """Returns the names of all objects under `prefix/`."""
        import obstore

        with self._translated_errors():
            return [found["path"] for page in obstore.list(self._store, f"{prefix}/") for found in page]

    def files(self, prefix: str) -> dict[str, tuple[int, int]]:
        """Returns the objects directly under a prefix: last part of the name -> size and stamp (see `_stamp`)."""
        import obstore

        with self._translated_errors():
            found = obstore.list_with_delimiter(self._store, f"{prefix}/")["objects"]
        return {one["path"].rpartition("/")[2]: (one["size"], _stamp(one)) for one in found}

    def has(self, name: str) -> bool:
        """Returns whether the object exists."""
        import obstore

        with self._translated_errors():
            try:
                obstore.head(self._store, name)
            except FileNotFoundError:
                return False
        return True

    def read(self, name: str) -> tuple[bytes, float] | None:
        """Returns an object's bytes and modification time in seconds, or None if it does not exist."""
        import obstore

        with self._translated_errors():
            try:
                found = obstore.get(self._store, name)
                return bytes(found.bytes()), found.meta["last_modified"].timestamp()
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """Writes an object, replacing any existing one."""
        import obstore

        with self._translated_errors():
            obstore.put(self._store, name, content)

    def create(self, name: str, content: bytes) -> bool:
        """Writes an object unless it exists. Of several concurrent callers, exactly one gets True."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        with self._translated_errors():
            try:
                obstore.put(self._store, name, content, mode="create")
            except AlreadyExistsError:
                return False
        return True

    def remove(self, *names: str) -> None:
        """Removes objects; ignores missing ones."""
        import obstore

        with self._translated_errors():
            if names:
                obstore.delete(self._store, list(names))

    def upload(self, files: dict[str, Path]) -> None:
        """Uploads files (object name -> file) concurrently."""
        import obstore

        with self._translated_errors(), ThreadPoolExecutor(CONCURRENCY) as threads:
            list(threads.map(lambda item: obstore.put(self._store, item[0], item[1]), files.items()))

    def download(self, files: dict[str, Path]) -> None:
        """Downloads objects (object name -> file) concurrently; each file is written atomically.

        A file's modification time is set to its object's stamp. Objects deleted in the meantime are skipped.
        """
        with self._translated_errors(), ThreadPoolExecutor(CONCURRENCY) as threads:
            list(threads.map(lambda item: self._download(*item), files.items()))

    def _download(self, name: str, path: Path) -> None:
        import obstore

        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            found = obstore.get(self._store, name)
            with half.open("wb") as file:
                for chunk in found.stream(min_chunk_size=CHUNK):
                    file.write(chunk)
            os.utime(half, ns=(_stamp(found.meta), _stamp(found.meta)))
            half.replace(path)
        except FileNotFoundError:
            return
        finally:
            half.unlink(missing_ok=True)

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Converts server and network errors into a one-line StorageError that names the setting."""
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, FileNotFoundError, PermissionError) as error:
            raise StorageError(f"storage: {self.url}: {self._reason(str(error))}") from error

    def _reason(self, text: str) -> str:
        code = found[1] if (found := re.search("<Code>(.*?)</Code>", text)) else ""
        if code == "NoSuchBucket":
            return "the bucket does not exist; create it or change storage"
        if re.search("/latest/(api|meta-data)/|computeMetadata", text):  # fell back to the cloud's metadata service
            return f"no credentials were found; set {CREDENTIALS[self._scheme]}"
        if " 403 " in text or " 401 " in text:
            return f"access denied{f' ({code})' if code else ''}; check {CREDENTIALS[self._scheme]}"
        said = text.splitlines()[0] if text else "it does not respond"
        return f"{said}; check the network, AWS_ENDPOINT_URL if set, and the credentials"


def _stamp(meta: Any) -> int:
    """Returns the modification time in ns. Servers report whole seconds; a hash of the ETag fills the lower digits."""
    return int(meta["last_modified"].timestamp()) * 10**9 + zlib.crc32(str(meta["e_tag"]).encode()) % 10**9
