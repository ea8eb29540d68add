"""The interface of inference engines, independent of the library that runs the model."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, Protocol, TypedDict

from safecomm.data.turns import filled, rendered, token_ids
from safecomm.serving.reasoning import Split


class Question(TypedDict):
    """One prompt for an engine."""

    messages: list[dict[str, str]]
    """The chat so far, ending with a user message."""
    options: list[str]
    """Continuations to compare by likelihood; empty to generate an answer."""
    chat_template_kwargs: NotRequired[dict[str, Any]]
    """Arguments of the chat template."""
    parts: NotRequired[bool]
    """Whether the chat template reads a message's content as a list of parts, as multimodal models do."""
    score: NotRequired[Literal["mean", "sum", "median"]]
    """How an option's score follows from the log-probabilities of its tokens; by default their mean.

    The sum is the probability of the whole text. For words of different token counts the mean is wrong: where only the
    first token of `unsafe` is in doubt, `unsafe` would beat a one-token `safe` from p = 0.38 on."""
    template: NotRequired[str]
    """The full prompt, with `{prompt}` and `{response}` as placeholders for the first and second message, for models
    that are used without their chat template."""
    prefill: NotRequired[tuple[str, int]]
    """A text, and how many of its tokens the answer starts with."""
    seed: NotRequired[int]
    """If set, the answer is sampled (temperature 1, top-p 1, no top-k), else decoding is greedy. The same seed gives
    the same text up to the engine's floating-point rounding: other prompts in the batch can change the last digits of a
    logit, and so a token."""


SCORES: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": statistics.fmean,
    "sum": sum,
    "median": statistics.median,
}
PLACES = ("prompt", "response")
"""The placeholders of a template."""


class Answer(TypedDict):
    """An engine's answer to a question."""

    response: str
    """The generated text, without its reasoning; empty if options were compared."""
    reasoning: str
    """The reasoning trace of a thinking model; empty otherwise."""
    finish_reason: str
    """`stop`, `length`, `compared` (options), or `too_long` if the prompt exceeds the context length."""
    scores: list[float]
    """Log-probability of each option, see `option_score`; empty for generated text."""
    error: str
    """Why there is no answer; empty if there is one."""
    tokens: NotRequired[int]
    """How many tokens the engine generated for it, for the progress display; it is not stored."""


@dataclass(frozen=True)
class EngineSettings:
    """Settings that an engine needs at startup."""

    max_new_tokens: int
    max_model_len: int
    max_lora_rank: int
    """0 if no adapters will be used."""
    lora_targets: tuple[str, ...]
    """The linear modules that adapters may change."""
    on_gpu: bool = False
    """Explicit because it can't be detected: with several GPUs per engine, only its workers see them."""
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    sampled: bool = False
    """Whether questions have seeds."""
    ignore_eos: bool = False
    """Always generate `max_new_tokens` tokens, for benchmarks."""
    simulation: dict[str, float] | None = None
    """The fields of a `Simulation`, for simulated engines."""

    @property
    def gpus(self) -> int:
        """GPUs per engine."""
        return self.tensor_parallel * self.pipeline_parallel


class Engine(Protocol):
    """A model with a selectable adapter per request."""

    async def answer(self, questions: list[Question], adapter: str | None) -> list[Answer]:
        """Returns answers in the order of the questions, with the adapter in a folder or without one.

        A question that fails gets an `error` and does not affect the others.
        """
        ...

    async def check_health(self) -> None:
        """Raises if the engine is dead, so that Ray Serve replaces it."""
        ...

    @property
    def cache_tokens(self) -> int:
        """Tokens that its KV cache has room for; 0 where it makes one for each batch."""
        ...


def option_score(logprobs: Sequence[float], question: Question) -> float:
    """Returns an option's score from the log-probabilities of its tokens, as the question asks for it."""
    return SCORES[question.get("score", "mean")](logprobs)


def too_long() -> Answer:
    """Returns the empty answer to a question that exceeds the context length; retrying would not help."""
    return Answer(response="", reasoning="", finish_reason="too_long", scores=[], error="")


def compared(scores: list[float]) -> Answer:
    """Returns the answer to a question with options."""
    return Answer(response="", reasoning="", finish_reason="compared", scores=scores, error="")


def written(parts: Split, finish_reason: str, start: str = "", tokens: int = 0) -> Answer:
    """Returns the answer to a question without options.

    Args:
        parts: what the model wrote.
        finish_reason: why it ended.
        start: the part that the model was given.
        tokens: how many tokens it wrote.
    """
    return Answer(
        response=start + parts.answer,
        reasoning=parts.reasoning,
        finish_reason=finish_reason,
        scores=[],
        error="",
        tokens=tokens,
    )


def failed(reason: str) -> Answer:
    """Returns the answer to a question that failed."""
    return Answer(response="", reasoning="", finish_reason="error", scores=[], error=reason)


def chat_ids(tokenizer: Any, question: Question) -> list[int]:
    """Returns the token ids of a chat, including the generation prompt.

    Text in a message that looks like a special token is encoded as ordinary tokens, so it can't end a turn.
    """
    messages = question["messages"]
    if template := question.get("template"):
        contents = {f"{{{name}}}": turn["content"] for name, turn in zip(PLACES, messages, strict=False)}
        return _start(tokenizer, template) + filled(tokenizer, template, contents)
    return token_ids(
        tokenizer, _turns(question), add_generation_prompt=True, **question.get("chat_template_kwargs", {})
    )


def opening(tokenizer: Any, question: Question) -> tuple[list[int], str]:
    """Returns the tokens with which the answer has to start, and their text; empty without a prefill."""
    if "prefill" not in question:
        return [], ""
    text, tokens = question["prefill"]
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"][:tokens]
    return ids, tokenizer.decode(ids)


def render_chat(tokenizer: Any, question: Question) -> str:
    """Renders a question's chat with the model's template, including the generation prompt."""
    arguments = {"add_generation_prompt": True, **question.get("chat_template_kwargs", {})}
    text: str = rendered(tokenizer, _turns(question), **arguments)
    return text


def _turns(question: Question) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = list(question["messages"])
    if question.get("parts"):
        return [turn | {"content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
    return turns


def end_ids(tokenizer: Any) -> list[int]:
    """Returns the tokens that end an answer: EOS, and the one that the chat template puts after an assistant's turn.

    A chat model whose files name the EOS of its base model ends its turns with a token that is not EOS, and would go on
    with a turn of the user.
    """
    return sorted({tokenizer.eos_token_id, _end_of_turn(tokenizer)} - {None})


def _end_of_turn(tokenizer: Any) -> int | None:
    from jinja2 import TemplateError

    answer = "\ue000"
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]
    try:
        _, found, after = rendered(tokenizer, turns).rpartition(answer)
    except (TemplateError, ValueError):  # no template, or one that takes other turns
        return None
    ids = tokenizer(after.lstrip(), add_special_tokens=False)["input_ids"] if found else []
    special = tokenizer.get_added_vocab().values()
    return ids[0] if ids and ids[0] in special else None


def _start(tokenizer: Any, template: str) -> list[int]:
    """Returns the BOS token if this tokenizer adds one and the template does not already have it."""
    bos = tokenizer.bos_token
    adds_bos = bos is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    return [tokenizer.bos_token_id] if adds_bos and not template.startswith(bos) else []
