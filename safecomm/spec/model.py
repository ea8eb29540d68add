"""The `model` section: the model under study."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from safecomm.defenses.space import PathText, Strict

OURS = ("add_generation_prompt", "chat_template", "continue_final_message", "return_dict", "return_tensors", "tokenize")
"""Arguments of transformers' `apply_chat_template` that decide what is asked at all."""


def template_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """Refuses arguments that are no variables of a template.

    Raises:
        ValueError: naming the argument.
    """
    if wrong := [name for name in arguments if name in OURS or not name.isidentifier()]:
        raise ValueError(f"{wrong[0]:.40} is not a variable of a chat template; remove it")
    return arguments


class Model(Strict):
    """One model before and after alignment."""

    base: PathText
    """The pre-trained weights: a folder, a hub id (`ORG/NAME` or `ORG/NAME@REVISION`), or `lab://base`."""
    aligned: PathText
    """The chat or instruct weights that are fine-tuned: a folder, a hub id, or `lab://aligned`."""
    system_prompt: str | None = None
    """A system prompt for every evaluation. None by default, as in the study."""
    chat_template_kwargs: Annotated[
        dict[str, Any], AfterValidator(template_arguments), Field(exclude_if=lambda arguments: not arguments)
    ] = {}
    """Arguments of the chat template, in training and evaluation, e.g. `{enable_thinking: false}` for Qwen3."""
