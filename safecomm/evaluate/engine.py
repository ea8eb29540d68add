"""What an engine that answers prompts offers, whichever library runs the model."""

import re
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict


class Question(TypedDict):
    """One prompt for an engine."""

    messages: list[dict[str, str]]
    """The chat so far, ending with the user's turn."""
    options: list[str]
    """Continuations to compare by likelihood; empty where an answer is to be written."""


class Answer(TypedDict):
    """What an engine made of a question."""

    response: str
    """The text written; empty where options were compared."""
    finish_reason: str
    """`stop`, `length`, or `compared` where options were."""
    scores: list[float]
    """Mean log-probability per token of each option; empty where a text was written."""
    error: str
    """Why there is no answer; empty where there is one."""


@dataclass(frozen=True)
class EngineSettings:
    """What both engines need to know before the first question."""

    max_new_tokens: int
    max_model_len: int
    max_lora_rank: int
    """0 where no adapter will be asked for."""
    lora_targets: tuple[str, ...]
    """The linear modules that adapters may touch."""
    tensor_parallel: int = 1


class Engine(Protocol):
    """A model that takes an adapter per request."""

    async def answer(self, questions: list[Question], adapter: str | None) -> list[Answer]:
        """Answers questions in their order with the adapter of a folder, or with the bare model.

        Decoding is greedy. A question that can't be answered gets an `error`; the others are not touched by it.
        """
        ...

    async def check_health(self) -> None:
        """Raises where the engine is dead, so that Ray Serve starts another in its place."""
        ...


def failed(reason: str) -> Answer:
    """Returns the answer of a question that could not be answered."""
    return Answer(response="", finish_reason="error", scores=[], error=reason)


def chat_ids(tokenizer: Any, question: Question) -> list[int]:
    """Returns the token ids of a chat up to where the assistant begins to speak.

    Text in a message that looks like a special token is data: it becomes ordinary tokens and can't end a turn.
    """
    messages = question["messages"]
    marks = tokenizer.get_added_vocab()
    if any(mark in message["content"] for message in messages for mark in marks):
        return _ids_without_marks(tokenizer, messages)
    return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))


def _ids_without_marks(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    """Tokenizes the template and the messages' texts apart, the latter without special tokens."""
    blanks = {f"\ue000{place}\ue001": message["content"] for place, message in enumerate(messages)}
    masked = [message | {"content": blank} for message, blank in zip(messages, blanks, strict=True)]
    rendered = tokenizer.apply_chat_template(masked, add_generation_prompt=True, tokenize=False)
    ids: list[int] = []
    for piece in re.split("(\ue000\\d+\ue001)", rendered):
        text = blanks.get(piece, piece)
        ids += tokenizer(text, add_special_tokens=False, split_special_tokens=piece in blanks)["input_ids"]
    return ids
