"""What an engine that answers prompts offers, whichever library runs the model."""

import re
from dataclasses import dataclass
from typing import Any, NotRequired, Protocol, TypedDict


class Question(TypedDict):
    """One prompt for an engine."""

    messages: list[dict[str, str]]
    """The chat so far, ending with the user's turn."""
    options: list[str]
    """Continuations to compare by likelihood; empty where an answer is to be written."""
    template: NotRequired[str]
    """The whole prompt, with `{prompt}` and `{response}` for the contents of the first and second message, for models
    that are not asked through their chat template."""
    seed: NotRequired[int]
    """With it the answer is sampled from the model's own distribution (temperature 1, top-p 1, no top-k); without it
    decoding is greedy. With the same seed it is the same text, as far as the engine's arithmetic is: what shares a
    batch with a prompt can change a logit's last digits, and with them a word."""


PLACES = ("prompt", "response")
"""The places of a template."""


class Answer(TypedDict):
    """What an engine made of a question."""

    response: str
    """The text written; empty where options were compared."""
    finish_reason: str
    """`stop`, `length`, `compared` where options were, or `too_long` for a prompt that the model can't read whole."""
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
    on_gpu: bool = False
    """Told and not looked for: an engine that is split over GPUs has them in its workers, and none in sight itself."""
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    sampled: bool = False
    """Whether questions bring seeds."""
    ignore_eos: bool = False
    """Write on to `max_new_tokens`, as timings need it."""

    @property
    def gpus(self) -> int:
        """GPUs of one engine."""
        return self.tensor_parallel * self.pipeline_parallel


class Engine(Protocol):
    """A model that takes an adapter per request."""

    async def answer(self, questions: list[Question], adapter: str | None) -> list[Answer]:
        """Answers questions in their order with the adapter of a folder, or with the bare model.

        A question that can't be answered gets an `error`; the others are not touched by it.
        """
        ...

    async def check_health(self) -> None:
        """Raises where the engine is dead, so that Ray Serve starts another in its place."""
        ...

    @property
    def cache_tokens(self) -> int:
        """Tokens that its KV cache has room for; 0 where it makes one for each batch."""
        ...


def too_long() -> Answer:
    """Returns the answer of a question that is longer than the model reads: none, and asking again gives no other."""
    return Answer(response="", finish_reason="too_long", scores=[], error="")


def failed(reason: str) -> Answer:
    """Returns the answer of a question that could not be answered."""
    return Answer(response="", finish_reason="error", scores=[], error=reason)


def chat_ids(tokenizer: Any, question: Question) -> list[int]:
    """Returns the token ids of a chat up to where the assistant begins to speak.

    Text in a message that looks like a special token is data: it becomes ordinary tokens and can't end a turn.
    """
    messages = question["messages"]
    if template := question.get("template"):
        contents = {f"{{{name}}}": turn["content"] for name, turn in zip(PLACES, messages, strict=False)}
        return _start(tokenizer, template) + _ids(tokenizer, template, contents)
    marks = tokenizer.get_added_vocab()
    if not any(mark in message["content"] for message in messages for mark in marks):
        return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))
    blanks = {f"\ue000{place}\ue001": message["content"] for place, message in enumerate(messages)}
    masked = [message | {"content": blank} for message, blank in zip(messages, blanks, strict=True)]
    return _ids(tokenizer, tokenizer.apply_chat_template(masked, add_generation_prompt=True, tokenize=False), blanks)


def _ids(tokenizer: Any, form: str, contents: dict[str, str]) -> list[int]:
    """Tokenizes a form and what stands in its places apart, the latter without special tokens."""
    ids: list[int] = []
    for piece in re.split(f"({'|'.join(map(re.escape, contents))})", form):
        text = contents.get(piece, piece)
        ids += tokenizer(text, add_special_tokens=False, split_special_tokens=piece in contents)["input_ids"]
    return ids


def _start(tokenizer: Any, template: str) -> list[int]:
    """Returns the token that this model's texts begin with, unless the template has it."""
    mark = tokenizer.bos_token
    begins = mark is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    return [tokenizer.bos_token_id] if begins and not template.startswith(mark) else []
