"""Resolves model references to folders: a folder, `ORG/NAME` or `ORG/NAME@REVISION` on the Hub, or a lab model."""

from dataclasses import dataclass
from pathlib import Path

from safecomm.errors import ModelError, UsageError
from safecomm.serving.identity import identity
from safecomm.storage.hub_cache import download, revision_of, split_reference
from safecomm.storage.model_files import read_object, size_in
from safecomm.storage.store import Store

LAB = "lab://"
CONFIG = "config.json"


@dataclass(frozen=True)
class ModelFolder:
    """A model on disk."""

    path: Path
    identity: str
    """A hash that changes with the weights, the configuration or the tokenizer."""

    @property
    def revision(self) -> str | None:
        """The commit of a model from the Hub."""
        return revision_of(self.path)

    @property
    def context(self) -> int | None:
        """Context length in tokens; None if the configuration does not specify it.

        Raises:
            ModelError: if it is no positive number.
        """
        config = read_object(self.path / CONFIG)
        text = config.get("text_config")
        try:
            return size_in(text if isinstance(text, dict) else config, "max_position_embeddings")
        except ModelError as error:
            raise ModelError(f"{self.path / CONFIG}: {error}; download it again") from error

    def check_context(self, tokens: int, setting: str) -> None:
        """Checks that a text length is within the model's context length.

        Raises:
            UsageError: if it is longer; the message names the setting to lower.
        """
        if self.context and tokens > self.context:
            raise UsageError(
                f"{setting}: is {tokens}, but the context length of {self.path} is {self.context}; lower the setting"
            )


def resolve_model(reference: str, store: Store) -> ModelFolder:
    """Returns a model's folder (see `model_folder`) with its identity."""
    folder = model_folder(reference, store)
    return ModelFolder(folder, identity(folder, store))


def model_folder(reference: str, store: Store) -> Path:
    """Returns the folder of a model; downloads it if needed.

    Raises:
        ModelError: if the model does not exist or its folder is unusable.
    """
    if reference.startswith(LAB):
        folder = _lab_folder(reference.removeprefix(LAB), store)
    elif Path(reference).expanduser().is_dir():
        folder = Path(reference).expanduser().resolve()
    elif reference.startswith((".", "/", "~")) or reference.count("/") != 1:
        raise ModelError(f"model {reference}: no such folder")
    else:
        folder = download(*split_reference(reference))
    _check(folder, reference)
    return folder


def _lab_folder(name: str, store: Store) -> Path:
    from safecomm.data.lab.shipped import NAMES, shipped_model

    if name not in NAMES:
        raise ModelError(f"model {LAB}{name}: unknown lab model; known: {', '.join(LAB + one for one in NAMES)}")
    return shipped_model(name, store)


def _check(folder: Path, reference: str) -> None:
    if not (folder / CONFIG).is_file():
        raise ModelError(f"model {reference}: {folder} has no {CONFIG}")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"model {reference}: {folder} has no *.safetensors; convert the weights with save_pretrained")
    try:
        read_object(folder / CONFIG)
    except ModelError as error:
        raise ModelError(f"model {reference}: {error}") from error
