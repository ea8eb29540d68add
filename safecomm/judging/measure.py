"""Measures a model, in a sweep and in `safecomm evaluate`: generates answers to prompts and judges them.

Both use the same store keys, so each reuses the other's answers and verdicts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from safecomm.data.rows import Prompt
from safecomm.judging.conversations import converse, with_conversation
from safecomm.judging.model_judge import Panel
from safecomm.judging.surprisal import SurprisalScorer
from safecomm.judging.verdicts import judged
from safecomm.serving.chat import check_chat_template
from safecomm.serving.fleet import wait_for_fleet
from safecomm.serving.models import ModelFolder
from safecomm.serving.protocol import EvaluationProtocol
from safecomm.serving.responses import Questions, Responses, answers_of
from safecomm.serving.startup import fleet_seconds
from safecomm.serving.stream import Count, Request, stream, uncounted
from safecomm.storage.store import Store, digest
from safecomm.storage.versions import version


@dataclass(frozen=True)
class Subject:
    """The model with one adapter, or without."""

    adapter: Path | None = None
    """The adapter's folder."""
    content: str = ""
    """The adapter's content hash."""


@dataclass(frozen=True)
class Measurement:
    """A model, its prompts and the judges of its answers."""

    model: ModelFolder
    prompts: Sequence[Prompt]
    panel: Panel
    protocol: EvaluationProtocol
    store: Store
    """The store of answers and of the judges' replies."""

    @property
    def single(self) -> list[Prompt]:
        """The prompts that are asked alone."""
        return [prompt for prompt in self.prompts if not prompt.turn]

    @property
    def turns(self) -> list[Prompt]:
        """The turns of conversations."""
        return [prompt for prompt in self.prompts if prompt.turn]

    @property
    def questions(self) -> Questions:
        """The prompts that are asked alone, in the form that the model receives."""
        return self.protocol.questions(self.single)

    def check_chat_templates(self) -> None:
        """Checks, before engines start, that the model and the judges take the chats that they will be asked.

        Raises:
            ModelError: if one has no chat template, or one that rejects such chats.
        """
        (question,) = self.protocol.questions([Prompt("", "over_refusal", "a prompt")]).values()
        check_chat_template(self.model.path, question, "model")
        self.panel.check_chat_templates()

    def responses(self, subject: Subject) -> Responses:
        """Returns a subject's stored answers."""
        return Responses(self.store, {**self._way(subject), "version": version("responses")})

    def key(self, subject: Subject) -> dict[str, Any]:
        """Returns everything that determines a subject's judged rows."""
        return {
            **self._way(subject),
            "prompts": digest([prompt.as_key() for prompt in self.prompts]),
            "samples": self.protocol.samples,
            "judges": self.panel.as_key(),
            "version": version("responses", "replies", "surprisal", "evaluation"),
        }

    def readings(self, subject: Subject) -> Responses:
        """Returns what is stored about how surprising a subject's answers are."""
        return Responses(self.store, {"surprisal": self._way(subject), "version": version("responses", "surprisal")})

    def _way(self, subject: Subject) -> dict[str, Any]:
        return {"model": self.model.identity, "adapter": subject.content, **self.protocol.as_key()}


def measure(
    measurement: Measurement,
    subjects: Mapping[str, Subject],
    start: Callable[[], None] = lambda: None,
    say: Callable[[str], None] = lambda line: None,
    count: Count = uncounted,
) -> dict[str, pd.DataFrame]:
    """Generates the missing answers of all subjects in one pass, scores their surprisal, and judges every answer.

    Args:
        measurement: the model, prompts, judges and store.
        subjects: name -> the model with one adapter, or without.
        start: called before the first request to a model or judge; starts the fleets if necessary.
        say: called with progress lines.
        count: called with the number of answers so far, of questions, and of tokens.

    Returns:
        name -> a row per answer, in the format of `judged`.
    """

    def ask(missing: Mapping[str, Questions]) -> Iterator[tuple[str, pd.DataFrame]]:
        return answered({name: _request(subjects[name], asked) for name, asked in missing.items()}, count)

    def ask_one(subject: Subject, questions: Questions) -> Iterator[pd.DataFrame]:
        return (rows for _, rows in answered({"": _request(subject, questions)}))

    def answered(requests: Mapping[str, Request], count: Count = uncounted) -> Iterator[tuple[str, pd.DataFrame]]:
        start()
        wait_for_fleet(fleet_seconds(measurement.model.path))
        return stream(requests, report=say, count=count)

    kept = {name: measurement.responses(subject) for name, subject in subjects.items()}
    protocol, single, turns = measurement.protocol, measurement.single, measurement.turns
    seated = measurement.panel.seated(measurement.store, protocol.engine, start)
    answers = answers_of(kept, measurement.questions, ask)
    panel = seated.judges, seated.grader, seated.refusal_judge
    found = {}
    for name, rows in answers.items():
        tables = []
        if single:
            scorer = SurprisalScorer(protocol, measurement.readings(subjects[name]), partial(ask_one, Subject()))
            tables.append(judged(scorer.with_surprisal(protocol.rows(single, rows)), *panel))
        if turns:
            assert seated.attacker, "a sweep with conversations has an attacker"
            held = converse(turns, seated.attacker, protocol, kept[name], partial(ask_one, subjects[name]))
            tables.append(with_conversation(judged(held, *panel)))
        found[name] = pd.concat(tables, ignore_index=True)
    return found


def _request(subject: Subject, questions: Questions) -> Request:
    return Request(questions, str(subject.adapter) if subject.adapter else None)
