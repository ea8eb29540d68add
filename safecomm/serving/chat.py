"""Checks that a model's chat template takes the chats that it will be asked, before any engine starts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safecomm.errors import ModelError


def check_chat_template(
    model: Path, roles: Sequence[str], setting: str, arguments: Mapping[str, Any] | None = None
) -> None:
    """Renders a chat with a model's template.

    Args:
        model: its folder.
        roles: the roles of the chat's messages.
        setting: the setting that names the model.
        arguments: arguments of the template.

    Raises:
        ModelError: if there is no template, or it rejects or omits one of the messages.
    """
    from jinja2 import TemplateError
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    if not tokenizer.chat_template:
        raise ModelError(
            f"{setting}: {model} has no chat template, so it can't be asked; name a chat model, or save a template as "
            "chat_template.jinja in a local copy of it"
        )
    messages = [{"role": role, "content": f"a {role} message"} for role in roles]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **(arguments or {}))
    except (TemplateError, TypeError, ValueError) as error:
        raise ModelError(f"{setting}: the chat template of {model} rejects {_chat(roles)}: {error}") from error
    if missing := [message["role"] for message in messages if message["content"] not in text]:
        raise ModelError(f"{setting}: the chat template of {model} omits the {missing[0]} message of {_chat(roles)}")


def _chat(roles: Sequence[str]) -> str:
    """Names a chat by its roles, with the fix for a role that not every template takes."""
    return f"{', '.join(roles)} chats" + ("; set model.system_prompt: null" if "system" in roles else "")
