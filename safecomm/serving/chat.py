"""Checks that a model's chat template takes the chats that it will be asked, before any engine starts."""

from pathlib import Path

from safecomm.errors import ModelError
from safecomm.serving.engine import Question, render_chat


def check_chat_template(model: Path, question: Question, setting: str) -> None:
    """Renders a question with a model's template.

    Args:
        model: its folder.
        question: one with all the messages that it will be asked with.
        setting: what names the model.

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
    roles = [message["role"] for message in question["messages"]]
    chat = f"{', '.join(roles)} chats" + ("; set model.system_prompt: null" if setting == "model" and roles[1:] else "")
    try:
        text = render_chat(tokenizer, question, tokenize=False)
    except (TemplateError, TypeError, ValueError) as error:
        raise ModelError(f"{setting}: the chat template of {model} rejects {chat}: {error}") from error
    for message in question["messages"]:
        if message["content"].strip() not in text:
            raise ModelError(f"{setting}: the chat template of {model} omits the {message['role']} message of {chat}")
