"""Checks that a model's chat template takes the chats that it will be asked, before any engine starts."""

from pathlib import Path
from typing import Any

from safecomm.errors import ModelError
from safecomm.serving.engine import Question, render_chat


def loaded_tokenizer(model: Path, setting: str) -> Any:
    """Loads a model's configuration and tokenizer, as its engine will.

    Args:
        model: its folder.
        setting: what names the model.

    Raises:
        ModelError: if its type is unknown or it has no tokenizer.
    """
    from transformers import AutoConfig, AutoTokenizer

    what = "config.json"
    try:
        AutoConfig.from_pretrained(model)
        what = "tokenizer"
        return AutoTokenizer.from_pretrained(model)
    except Exception as error:  # transformers and tokenizers raise any type about a file's content
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(f"{setting}: the {what} of {model} can't be used: {said}") from error


def check_chat_template(model: Path, question: Question, setting: str) -> None:
    """Renders a question with a model's template.

    Args:
        model: its folder.
        question: one with all the messages that it will be asked with.
        setting: what names the model.

    Raises:
        ModelError: if there is no tokenizer or template, or the template rejects or omits one of the messages, or
            takes too long.
    """
    tokenizer = loaded_tokenizer(model, setting)
    if not tokenizer.chat_template:
        raise ModelError(
            f"{setting}: {model} has no chat template, so it can't be asked; name a chat model, or save a template as "
            "chat_template.jinja in a local copy of it"
        )
    roles = [message["role"] for message in question["messages"]]
    chat = f"{', '.join(roles)} chats" + ("; set model.system_prompt: null" if setting == "model" and roles[1:] else "")
    try:
        text = render_chat(tokenizer, question)
    except Exception as error:  # a template is a program, which can fail in any way
        raise ModelError(f"{setting}: the chat template of {model} rejects {chat}: {error}") from error
    for message in question["messages"]:
        if message["content"].strip() not in text:
            raise ModelError(f"{setting}: the chat template of {model} omits the {message['role']} message of {chat}")
