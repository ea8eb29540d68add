"""Model references of a sweep, made into folders: a local folder, a hub id, or the lab's `lab://base` and `lab://aligned`."""

import json
from dataclasses import dataclass
from pathlib import Path

from safecomm.errors import ModelError
from safecomm.storage.checksums import file_digest
from safecomm.storage.names import LINEAGE
from safecomm.storage.store import Store, digest

LAB = "lab://"
HASHED_WHOLE = 1 << 30
"""Files up to this many bytes are hashed in full; larger ones by size and time of change, as 140 GB take minutes."""


@dataclass(frozen=True)
class ModelFolder:
    """A model on disk."""

    path: Path
    identity: str
    """Changes when the weights, the configuration or the tokenizer do."""

    @property
    def context(self) -> int | None:
        """Longest text that it reads, in tokens; None where its configuration does not tell."""
        config = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
        found: int | None = config.get("max_position_embeddings")
        return found

    def check_context(self, tokens: int, setting: str) -> None:
        """Refuses texts longer than the model reads.

        Raises:
            ModelError: with the setting to lower.
        """
        if self.context and tokens > self.context:
            raise ModelError(f"{setting}: is {tokens}, but {self.path} reads {self.context} tokens; lower it to that")


def resolve_model(reference: str, store: Store) -> ModelFolder:
    """Returns a model's folder, as `model_folder` does, with its identity."""
    folder = model_folder(reference, store)
    return ModelFolder(folder, _identity(folder))


def model_folder(reference: str, store: Store) -> Path:
    """Returns the folder of a model, downloading it where needed.

    Raises:
        ModelError: when there is no such model, or its folder holds none that can be used.
    """
    if reference.startswith(LAB):
        folder = _lab_folder(reference.removeprefix(LAB), store)
    elif Path(reference).expanduser().is_dir():
        folder = Path(reference).expanduser().resolve()
    elif reference.startswith((".", "/", "~")) or reference.count("/") != 1:
        raise ModelError(f"model {reference}: there is no such folder")
    else:
        folder = _hub_folder(reference)
    _check(folder, reference)
    return folder


def _lab_folder(name: str, store: Store) -> Path:
    from safecomm.data.lab.shipped import NAMES, shipped_model

    if name not in NAMES:
        raise ModelError(f"model {LAB}{name}: the lab has {', '.join(LAB + one for one in NAMES)}")
    return shipped_model(name, store)


def _hub_folder(reference: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(reference, allow_patterns=["*.safetensors", "*.json", "*.model", "*.jinja"]))
    except GatedRepoError as error:
        raise ModelError(
            f"model {reference}: access is gated; ask for it on its hub page and set HF_TOKEN, or give a folder"
        ) from error
    except (RepositoryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"model {reference}: neither a folder nor to be had from the hub ({type(error).__name__}); give a folder"
        ) from error


def _check(folder: Path, reference: str) -> None:
    if not (folder / "config.json").is_file():
        raise ModelError(f"model {reference}: {folder} has no config.json")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"model {reference}: {folder} has no *.safetensors; convert the weights with save_pretrained")
    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ModelError(f"model {reference}: {folder}/config.json is not valid JSON (line {error.lineno})") from error


def _identity(folder: Path) -> str:
    """Hashes what decides the model's answers: weights, configuration, tokenizer and chat template."""
    files = sorted(
        path for pattern in ("*.safetensors", "*.json", "*.model", "*.jinja") for path in folder.glob(pattern)
    )
    marks = []
    for path in files:
        if path.name == LINEAGE:
            continue
        state = path.stat()
        mark = file_digest(path) if state.st_size <= HASHED_WHOLE else f"{state.st_size}-{state.st_mtime_ns}"
        marks.append([path.name, mark])
    return digest(marks)
