"""Judges behind an OpenAI-compatible server."""

import asyncio
import os
import re
from typing import Any

import pandas as pd

from safecomm.serving.engine import PLACES, Answer, Question, failed, too_long, written
from safecomm.serving.reasoning import THINK, Split, split
from safecomm.serving.responses import Ask, Questions
from safecomm.serving.stream import ID

CONCURRENCY = 32
"""Concurrent requests."""
TIMEOUT_SECONDS = 300.0
RETRIES = 5
"""Retries with exponential backoff, done by the openai client."""
_SPECIAL = re.compile(r"<(?=[^\s<>][^<>]{0,99}>)|\[(?=/?[a-z]?[A-Z][A-Z_0-9]{1,60}\]|e~\[)|\](?=~[a-z!]\w*[\[\]])")
"""The opening bracket of text that some tokenizers parse as a special token, e.g. `<|eot_id|>`, `</s>`, `[INST]`,
`[TOOL_CALLS]`, `[gMASK]`, `]~b]`."""
_VERDICT = re.compile(r'\s*\{\s*"verdict"\s*:\s*"(.*)"\s*\}\s*')


def remote_ask(url: str, model: str, max_tokens: int) -> Ask:
    """Returns a function that sends questions to a server.

    A question that still fails after retries gets an `error` and does not affect the others. The server tokenizes the
    text, so a space is inserted into anything that looks like a special token.

    Args:
        url: the server's root URL, e.g. `http://host:8000/v1`. The API key is read from OPENAI_API_KEY.
        model: the model's name on the server.
        max_tokens: maximum length of an answer.
    """

    def ask(questions: Questions) -> list[pd.DataFrame]:
        answers = asyncio.run(_all(questions, url, model, max_tokens))
        return [pd.DataFrame([{ID: name, **answer} for name, answer in zip(questions, answers, strict=True)])]

    return ask


async def _all(questions: Questions, url: str, model: str, max_tokens: int) -> list[Answer]:
    from openai import AsyncOpenAI

    turn = asyncio.Semaphore(CONCURRENCY)
    key = os.environ.get("OPENAI_API_KEY", "none")
    async with AsyncOpenAI(base_url=url, api_key=key, max_retries=RETRIES, timeout=TIMEOUT_SECONDS) as client:

        async def one(question: Question) -> Answer:
            async with turn:
                return await _answer(client, question, model, max_tokens)

        return await asyncio.gather(*(one(question) for question in questions.values()))


async def _answer(client: Any, question: Question, model: str, max_tokens: int) -> Answer:
    from openai import BadRequestError, OpenAIError

    how: dict[str, Any] = {"model": model, "temperature": 0, "max_tokens": max_tokens, "seed": 0}
    messages = [turn | {"content": _SPECIAL.sub(r"\g<0> ", turn["content"])} for turn in question["messages"]]
    try:
        if template := question.get("template"):
            contents = {f"{{{name}}}": turn["content"] for name, turn in zip(PLACES, messages, strict=False)}
            places = "|".join(map(re.escape, contents))
            prompt = re.sub(places, lambda found: contents[found[0]], template)
            choice = (await client.completions.create(prompt=prompt, **how)).choices[0]
            return written(split(choice.text, THINK), choice.finish_reason)
        if arguments := question.get("chat_template_kwargs"):
            how["extra_body"] = {"chat_template_kwargs": arguments}
        choice = (await client.chat.completions.create(messages=messages, **how, **_held_to(question))).choices[0]
    except OpenAIError as error:
        if isinstance(error, BadRequestError) and "context length" in str(error):
            return too_long()
        return failed(f"{type(error).__name__}: {error}".replace(client.api_key, "***"))
    said = choice.message.content or ""
    if question["options"]:
        return written(Split("", _VERDICT.sub(r"\1", said)), choice.finish_reason)
    parts = split(said, THINK)  # a server with a reasoning parser returns the reasoning in a field of its own
    more = choice.message.model_extra or {}
    reasoning = parts.reasoning or more.get("reasoning") or more.get("reasoning_content") or ""
    return written(Split(reasoning, parts.answer), choice.finish_reason)


def _held_to(question: Question) -> dict[str, Any]:
    """Returns the response format that constrains a server to the question's options: `{"verdict": OPTION}`."""
    if not question["options"]:
        return {}
    schema = {
        "type": "object",
        "properties": {"verdict": {"type": "string", "enum": question["options"]}},
        "required": ["verdict"],
        "additionalProperties": False,
    }
    wanted = {"name": "verdict", "schema": schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": wanted}}
