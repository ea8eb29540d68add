"""Splits a thinking model's reasoning off its answer: judges are to read the answer alone."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

PROMPT_END = 16
"""Tokens of a prompt that can hold the generation prompt's opening of a reasoning trace."""


class Markers(NamedTuple):
    """The text before and after a reasoning trace."""

    opening: str
    closing: str


THINK = Markers("<think>", "</think>")
"""Qwen3, DeepSeek-R1, Granite, SmolLM3, OLMo."""
FORMATS = (
    THINK,
    Markers("[THINK]", "[/THINK]"),  # Magistral
    Markers("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),  # gpt-oss
)


class Split(NamedTuple):
    """What a model wrote, in two parts."""

    reasoning: str
    """Empty for a model that does not think."""
    answer: str
    """Empty if the token limit ended the reasoning."""


class ReasoningSplitter:
    """Splits what one model writes.

    Only the markers of the model's own chat template count, so that no other model can hide its answer from a judge
    behind a `</think>`.
    """

    def __init__(self, tokenizer: Any):
        """Reads the markers from a tokenizer's chat template."""
        self._tokenizer = tokenizer
        template = tokenizer.get_chat_template() if tokenizer.chat_template else ""
        self._markers = next((one for one in FORMATS if one.closing in template or one.opening in template), None)

    def split(self, prompt: Sequence[int], written: Sequence[int], text: str) -> Split:
        """Splits an answer.

        Args:
            prompt: the prompt's token ids; some templates open the reasoning there.
            written: the token ids that the model wrote.
            text: these as text, without special tokens.
        """
        if self._markers is None:
            return Split("", text)
        raw = self._tokenizer.decode(written, skip_special_tokens=False)
        opened = self._tokenizer.decode(prompt[-PROMPT_END:]).rstrip().endswith(self._markers.opening)
        reasoning, answer = split(raw, self._markers, opened=opened)
        return Split(self._plain(reasoning), self._plain(answer)) if reasoning or answer != raw else Split("", text)

    def _plain(self, text: str) -> str:
        """Removes the special tokens."""
        return re.sub("|".join(map(re.escape, self._tokenizer.all_special_tokens)), "", text).strip()


def split(text: str, markers: Markers, *, opened: bool = False) -> Split:
    """Splits a text at the end of its reasoning.

    Args:
        text: what a model wrote.
        markers: the model's.
        opened: whether the prompt opened the reasoning already.
    """
    if not (opened or text.lstrip().startswith(tuple(markers))):
        return Split("", text)
    reasoning, _, answer = text.partition(markers.closing)
    return Split(reasoning.replace(markers.opening, "", 1).strip(), answer.strip())
