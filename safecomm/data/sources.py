"""Where published datasets live: tables of the Hugging Face hub, and files at an address."""

import http.client
import os
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safecomm.data.files import parse
from safecomm.data.table import Table
from safecomm.errors import DataError
from safecomm.storage.store import digest

GITHUB = "https://github.com"
RAW = "https://raw.githubusercontent.com"
PATIENCE = 10
"""Seconds to wait for a server."""


@dataclass(frozen=True, slots=True)
class Hub:
    """One split of a hub dataset."""

    repo: str
    split: str
    config: str | None = None
    options: tuple[tuple[str, Any], ...] = ()
    """What its builder is told, e.g. that its CSV files have no header."""

    @property
    def where(self) -> str:
        """The id, configuration and split."""
        return "/".join(filter(None, ["hf://datasets", self.repo, self.config, self.split]))

    @property
    def page(self) -> str:
        """The page that describes the dataset, and where access is asked for."""
        return f"https://huggingface.co/datasets/{self.repo}"

    @property
    def is_here(self) -> bool:
        """Whether it is read without a network: in offline mode, which takes what the hub's cache has."""
        from huggingface_hub import constants

        return bool(constants.HF_HUB_OFFLINE)

    def table(self, password: str = "") -> Table:
        """Reads the split from the hub, or from its local cache in offline mode.

        Raises:
            DataError: where the hub can't be reached or refuses.
        """
        from huggingface_hub import constants

        # `datasets` tries an unreachable hub for half a minute; one short question beforehand spares that
        if not constants.HF_HUB_OFFLINE and not _answers(constants.ENDPOINT):
            raise DataError(
                f"{constants.ENDPOINT} can't be reached; HF_HUB_OFFLINE=1 reads a copy that is already in the cache"
            )
        import datasets

        try:
            rows = datasets.load_dataset(self.repo, self.config, split=self.split, **dict(self.options)).to_list()
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            reason = str(error).strip().split("\n")[0].rstrip(".")
            raise DataError(f"{self.where} can't be loaded: {reason or type(error).__name__}") from error
        return Table(rows, self.where)


@dataclass(frozen=True, slots=True)
class Web:
    """One file at an address, kept in the user's cache once it has been downloaded."""

    url: str
    page: str

    @property
    def where(self) -> str:
        """The address."""
        return self.url

    @property
    def is_here(self) -> bool:
        """Whether it has been downloaded."""
        return self._copy.is_file()

    @property
    def _copy(self) -> Path:
        return _cache() / f"{digest(self.url)}-{self._name}"

    @property
    def _name(self) -> str:
        return self.url.rsplit("/", 1)[-1]

    def table(self, password: str = "") -> Table:
        """Reads the file from the cache, which it enters on first use.

        Raises:
            DataError: where the address can't be reached or the file is unsound.
        """
        if self.is_here:
            return parse(self._copy.read_bytes(), self._name, str(self._copy), password)
        content = _download(self.url)
        table = parse(content, self._name, self.url, password)
        _save(self._copy, content)  # once it has proved sound
        return table


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=PATIENCE).close()
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
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            content: bytes = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"{url} can't be downloaded: {error}") from error
    return content


def _save(path: Path, content: bytes) -> None:
    """Writes a file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as half:
        half.write(content)
    Path(half.name).replace(path)
