"""Checks within a second, without torch or transformers, that a model's folder has what its use needs."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from safecomm.errors import ModelError, UsageError
from safecomm.serving.models import CONFIG, ModelFolder
from safecomm.storage.model_files import read_object

TOKENIZERS = ("tokenizer*", "vocab.*", "merges.txt", "*.model", "tekken.json")
TEMPLATES = ("chat_template.*", "additional_chat_templates")
Use = Literal["weights", "engine", "chat"]
"""What is done with a model: its weights are compared, it answers texts of any form, or it answers chats."""


def folder_problems(folder: Path, use: Use, context: Mapping[str, int]) -> Iterator[str]:
    """Yields what is wrong with a model's folder.

    Args:
        folder: an existing folder with a `config.json`.
        use: what is done with the model.
        context: setting -> tokens that have to be within the model's context.
    """
    try:
        config = read_object(folder / CONFIG)
        for setting, tokens in context.items():
            ModelFolder(folder, "").check_context(tokens, setting)
    except (ModelError, UsageError) as error:
        yield str(error)
        return
    if not any(folder.glob("*.safetensors")):
        yield f"{folder}: has no *.safetensors; convert the weights with save_pretrained"
    elif use != "weights" and not isinstance(config.get("model_type"), str):
        yield f"{folder / CONFIG}: has no model_type; download or create it again"
    elif use != "weights" and not _has(folder, TOKENIZERS):
        yield f"{folder}: has no tokenizer; copy its files from the model that it was made of"
    elif use == "chat" and not _has(folder, TEMPLATES) and not _names_a_template(folder):
        yield f"{folder}: has no chat template; name a chat model, or save a template as chat_template.jinja in it"


def _has(folder: Path, patterns: tuple[str, ...]) -> bool:
    return any(True for pattern in patterns for _ in folder.glob(pattern))


def _names_a_template(folder: Path) -> bool:
    """Whether the tokenizer's configuration has a template; also if it is damaged, which loading it says better."""
    file = folder / "tokenizer_config.json"
    try:
        return bool(read_object(file).get("chat_template"))
    except ModelError:
        return file.exists()
