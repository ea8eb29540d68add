"""Converts benchmark prompts to questions for a model, and answers to rows."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pandas as pd

from safecomm.data.rows import Prompt
from safecomm.serving.engine import Question
from safecomm.serving.stream import ID
from safecomm.storage.store import digest

Message = dict[str, str]
"""A turn of a chat: its `role` and `content`."""


@dataclass(frozen=True)
class EvaluationProtocol:
    """How prompts are presented: everything that determines an answer apart from the model and the prompt."""

    engine: str
    max_new_tokens: int
    max_model_len: int
    system_prompt: str | None = None
    sampling: Literal["greedy", "safecomm"] = "greedy"
    """`safecomm`: temperature 1, top-p 1, no top-k, as in the study."""
    samples: int = 1
    """Answers per open prompt."""
    seed: int = 0
    """Seed for sampling."""
    multiple_choice: Literal["likelihood", "generation"] = "likelihood"
    """Score the most likely letter, or the letter that the model generates."""
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments of the chat template."""

    def as_key(self) -> dict[str, Any]:
        """Returns the fields that determine an answer; `samples` only adds answers.

        Empty arguments of the chat template are omitted: answers from before there were any keep their keys.
        """
        omitted = {"samples"} if self.chat_template_kwargs else {"samples", "chat_template_kwargs"}
        return {name: value for name, value in asdict(self).items() if name not in omitted}

    def questions(self, prompts: Sequence[Prompt]) -> dict[str, Question]:
        """Returns question id -> question."""
        return {name: self._question(prompt, name) for prompt in prompts for name in self.names(prompt)}

    def reading(self, text: str, response: str) -> Question:
        """Returns the question how likely the tokens of a given answer to a prompt are."""
        return self._asked(_said(text), [response]) | {"score": "median"}

    def next_question(self, messages: Sequence[Message], name: str) -> Question:
        """Returns the question that asks for the next answer of a conversation.

        Args:
            messages: the turns so far, without a system prompt; the last one is the user's.
            name: the question's id, which decides the seed.
        """
        return self._seeded(self._asked(messages, []), name)

    def rows(self, prompts: Sequence[Prompt], answers: pd.DataFrame) -> pd.DataFrame:
        """Returns one row per answer, in order, with the fields of the prompt and the answer, and `question_id`."""
        named = pd.DataFrame([{ID: name, **prompt.as_row()} for prompt in prompts for name in self.names(prompt)])
        # In a column of texts pandas makes NaN of None, which judges expect where a benchmark has no targets.
        named["target"] = named["target"].astype(object).where(named["target"].notna(), None)
        return answers.merge(named.drop_duplicates(ID), on=ID, how="left", validate="one_to_one")

    def names(self, prompt: Prompt) -> list[str]:
        """Returns the ids of a prompt's questions, one for each answer."""
        if self.sampling == "greedy" or self._is_compared(prompt):
            return [prompt.prompt_id]
        return [f"{prompt.prompt_id}#{number}" for number in range(self.samples)]

    def _is_compared(self, prompt: Prompt) -> bool:
        return bool(prompt.options) and self.multiple_choice == "likelihood"

    def _question(self, prompt: Prompt, name: str) -> Question:
        is_compared = self._is_compared(prompt)
        question = self._asked(_said(prompt.text), prompt.options if is_compared else [])
        if prompt.prefill:
            question["prefill"] = (prompt.prefill, prompt.prefill_tokens)
        return question if is_compared else self._seeded(question, name)

    def _seeded(self, question: Question, name: str) -> Question:
        if self.sampling != "greedy":
            # A separate seed per answer makes it independent of the other questions.
            question["seed"] = int(digest([self.seed, name])[:8], 16)
        return question

    def _asked(self, messages: Sequence[Message], options: Sequence[str]) -> Question:
        system = [{"role": "system", "content": self.system_prompt}] if self.system_prompt else []
        question = Question(messages=[*system, *messages], options=list(options))
        if self.chat_template_kwargs:
            question["chat_template_kwargs"] = self.chat_template_kwargs
        return question


def _said(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]
