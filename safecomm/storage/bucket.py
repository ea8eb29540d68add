"""A bucket of Amazon S3 (or what speaks its protocol) or of Google Cloud Storage, as far as a store needs one.

Credentials, region and endpoint come from the environment alone (`AWS_*`, `GOOGLE_*`, the node's own role).
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
AT_ONCE = 8
"""Objects that are transferred at a time."""
CHUNK = 16 << 20
RETRIES: Any = {"max_retries": 6, "retry_timeout": timedelta(seconds=60)}
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the machine's role, and AWS_REGION",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or the machine's service account",
}


class Bucket:
    """The objects of one bucket, by name. Every method raises a StorageError where the bucket can't be used."""

    def __init__(self, scheme: str, name: str):
        """Takes `s3` or `gs` and the bucket's name; asks nothing yet.

        Raises:
            UsageError: where the package is missing that talks to buckets.
        """
        self.url = f"{scheme}://{name}"
        self._scheme = scheme
        try:
            import obstore.store
        except ImportError as error:
            raise UsageError(
                f"storage: {self.url} is a bucket, which needs a package more: pip install 'safecomm[bucket]'"
            ) from error
        options: Any = {"allow_http": os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")}
        self._store = obstore.store.from_url(self.url, client_options=options, retry_config=RETRIES)

    def names(self, prefix: str) -> list[str]:
        """Returns the names of all objects whose names begin with `prefix` and a slash."""
        import obstore

        with self._translated_errors():
            return [found["path"] for page in obstore.list(self._store, f"{prefix}/") for found in page]

    def files(self, prefix: str) -> dict[str, tuple[int, int]]:
        """Returns the objects directly below a prefix: last part of the name -> bytes and stamp (see `_stamp`)."""
        import obstore

        with self._translated_errors():
            found = obstore.list_with_delimiter(self._store, f"{prefix}/")["objects"]
        return {one["path"].rpartition("/")[2]: (one["size"], _stamp(one)) for one in found}

    def has(self, name: str) -> bool:
        """Tells whether there is such an object."""
        import obstore

        with self._translated_errors():
            try:
                obstore.head(self._store, name)
            except FileNotFoundError:
                return False
        return True

    def read(self, name: str) -> tuple[bytes, float] | None:
        """Returns an object's bytes and when it was written (s); None where there is none."""
        import obstore

        with self._translated_errors():
            try:
                found = obstore.get(self._store, name)
                return bytes(found.bytes()), found.meta["last_modified"].timestamp()
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """Writes an object, in the place of any of that name."""
        import obstore

        with self._translated_errors():
            obstore.put(self._store, name, content)

    def create(self, name: str, content: bytes) -> bool:
        """Writes an object unless there is one; of all who try at once, one gets True."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        with self._translated_errors():
            try:
                obstore.put(self._store, name, content, mode="create")
            except AlreadyExistsError:
                return False
        return True

    def remove(self, *names: str) -> None:
        """Removes objects, those that there are."""
        import obstore

        with self._translated_errors():
            if names:
                obstore.delete(self._store, list(names))

    def upload(self, files: dict[str, Path]) -> None:
        """Writes objects (name -> file), several at a time."""
        import obstore

        with self._translated_errors(), ThreadPoolExecutor(AT_ONCE) as threads:
            list(threads.map(lambda item: obstore.put(self._store, item[0], item[1]), files.items()))

    def download(self, files: dict[str, Path]) -> None:
        """Writes objects (name -> file) to this machine, several at a time; each file appears whole or not at all.

        A file's time of change is its object's stamp. Objects that are gone meanwhile are left out.
        """
        with self._translated_errors(), ThreadPoolExecutor(AT_ONCE) as threads:
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
        """Makes what the bucket's server or the network says one line that names the setting."""
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, FileNotFoundError, PermissionError) as error:
            raise StorageError(f"storage: {self.url}: {self._reason(str(error))}") from error

    def _reason(self, text: str) -> str:
        code = found[1] if (found := re.search("<Code>(.*?)</Code>", text)) else ""
        if code == "NoSuchBucket":
            return "there is no such bucket; make it, or set storage to another"
        if re.search("/latest/(api|meta-data)/|computeMetadata", text):  # a cloud's machine was asked for its role
            return f"no credentials were found; set {CREDENTIALS[self._scheme]}"
        if " 403 " in text or " 401 " in text:
            return f"access is refused{f' ({code})' if code else ''}; check {CREDENTIALS[self._scheme]}"
        said = text.splitlines()[0] if text else "it does not answer"
        return f"{said}; check that it can be reached, AWS_ENDPOINT_URL where it is set, and the credentials"


def _stamp(meta: Any) -> int:
    """Returns when an object was written (ns), which servers tell in seconds, with its tag in the digits below."""
    return int(meta["last_modified"].timestamp()) * 10**9 + zlib.crc32(str(meta["e_tag"]).encode()) % 10**9
