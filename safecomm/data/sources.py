"""Sources of published datasets: Hugging Face Hub datasets and files at a URL."""

import http.client
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safecomm.data.files import parse
from safecomm.data.table import Table
from safecomm.errors import DataError
from safecomm.storage.input_files import MAX_BYTES, read_bytes
from safecomm.storage.output_files import whole_file
from safecomm.storage.store import digest

GITHUB = "https://github.com"
RAW = "https://raw.githubusercontent.com"
TIMEOUT_SECONDS = 10
"""Timeout for a server, in seconds."""


@dataclass(frozen=True, slots=True)
class Hub:
    """One split of a Hub dataset."""

    repo: str
    split: str
    config: str | None = None
    options: tuple[tuple[str, Any], ...] = ()
    """Options for the dataset builder, e.g. that CSV files have no header."""

    @property
    def where(self) -> str:
        """The id, configuration and split."""
        return "/".join(filter(None, ["hf://datasets", self.repo, self.config, self.split]))

    @property
    def page(self) -> str:
        """The dataset's page, where access is requested."""
        return f"https://huggingface.co/datasets/{self.repo}"

    @property
    def is_local(self) -> bool:
        """Whether it is read without network access, from the Hub's cache in offline mode."""
        from huggingface_hub import constants

        return bool(constants.HF_HUB_OFFLINE)

    def table(self, password: str = "") -> Table:
        """Reads the split from the Hub, or from its local cache in offline mode.

        Raises:
            DataError: if the Hub is unreachable or refuses access.
        """
        from huggingface_hub import constants

        # `datasets` retries an unreachable Hub for half a minute; one short request first avoids that.
        if not constants.HF_HUB_OFFLINE and not _answers(constants.ENDPOINT):
            raise DataError(
                f"{constants.ENDPOINT} can't be reached; HF_HUB_OFFLINE=1 reads a copy that is already in the cache"
            )
        import datasets

        try:
            rows = datasets.load_dataset(self.repo, self.config, split=self.split, **dict(self.options)).to_list()
        except Exception as error:  # its own types, and those of pyarrow, fsspec, huggingface_hub and HTTP clients
            reason = str(error).strip().split("\n")[0].rstrip(".")
            raise DataError(f"{self.where} can't be loaded: {reason or type(error).__name__}") from error
        return Table(rows, self.where)


@dataclass(frozen=True, slots=True)
class Web:
    """One file at a URL; downloads are kept in the user's cache."""

    url: str
    page: str

    @property
    def where(self) -> str:
        """The URL."""
        return self.url

    @property
    def is_local(self) -> bool:
        """Whether the file is in the cache."""
        return self._copy.is_file()

    @property
    def _copy(self) -> Path:
        return _cache() / f"{digest(self.url)}-{self._name}"

    @property
    def _name(self) -> str:
        return self.url.rsplit("/", 1)[-1]

    def table(self, password: str = "") -> Table:
        """Reads the file from the cache; downloads it on first use.

        Raises:
            DataError: if the URL is unreachable or the file is invalid.
        """
        if self.is_local:
            return parse(read_bytes(self._copy), self._name, str(self._copy), password)
        content = _download(self.url)
        table = parse(content, self._name, self.url, password)
        _save(self._copy, content)  # only after it has parsed
        return table


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def _cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "safecomm"


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:
            content: bytes = answer.read(MAX_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"{url} can't be downloaded: {error}") from error
    return content


def _save(path: Path, content: bytes) -> None:
    """Writes a file atomically."""
    with whole_file(path) as half:
        half.write_bytes(content)
