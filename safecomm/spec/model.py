"""The `model` section: the model under study."""

from typing import Annotated, Any

from pydantic import Field

from safecomm.defenses.space import PathText, Strict


class Model(Strict):
    """One model before and after alignment."""

    base: PathText
    """The pre-trained weights: a folder, a hub id (`ORG/NAME` or `ORG/NAME@REVISION`), or `lab://base`."""
    aligned: PathText
    """The chat or instruct weights that are fine-tuned: a folder, a hub id, or `lab://aligned`."""
    system_prompt: str | None = None
    """A system prompt for every evaluation. None by default, as in the study."""
    chat_template_kwargs: Annotated[dict[str, Any], Field(exclude_if=lambda arguments: not arguments)] = {}
    """Arguments of the chat template, in training and evaluation, e.g. `{enable_thinking: false}` for Qwen3."""
