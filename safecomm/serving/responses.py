"""Responses are kept per question: what a model has answered once, it is never asked again."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from safecomm.serving.engine import Question
from safecomm.serving.stream import ID
from safecomm.storage import shared
from safecomm.storage.checksums import file_digest
from safecomm.storage.disk import report_disk_full
from safecomm.storage.store import Store, digest, write_json

ATTEMPTS = 3
KEEP_SECONDS = 10.0
"""How often answers are written while others are still asked for: what is lost if everything dies."""
PART = "part-"
"""Begins the names that end with the file's digest; files of before have other names."""
Questions = Mapping[str, Question]
"""id -> question."""
Ask = Callable[[Questions], Iterable[pd.DataFrame]]
"""Answers questions, a row each, some at a time."""
AskAll = Callable[[Mapping[str, Questions]], Iterable[tuple[str, pd.DataFrame]]]
"""Answers the questions of several models."""


class Responses:
    """What one model, with one adapter or none, answered under one way of asking.

    A folder of the store with a Parquet file for each time that something was asked. A larger benchmark, or another
    judge, asks only for what is missing; a question that got no answer is asked again the next time. A file's name has
    its digest: one that is damaged is set aside, and its questions are asked again.
    """

    def __init__(self, store: Store, inputs: Mapping[str, Any]):
        """Opens the folder.

        Args:
            store: where it lies.
            inputs: all that decides an answer but the question: model, adapter, system prompt, sampling, engine.
        """
        self._inputs = dict(inputs)
        self._store = store
        self._folder = store.folder("responses", digest(self._inputs))
        self.lock = store.root / "scratch" / f"responses-{self._folder.name}.lock"

    def missing(self, questions: Questions) -> dict[str, Question]:
        """Returns the questions that have not been answered."""
        known = set(self.kept()[ID])
        return {name: question for name, question in questions.items() if name not in known}

    def of(self, questions: Questions, ask: Ask) -> pd.DataFrame:
        """Returns a row a question, as `answers_of` does."""
        return answers_of({"": self}, questions, lambda missing: (("", rows) for rows in ask(missing[""])))[""]

    def kept(self) -> pd.DataFrame:
        """Returns a row an answered question."""
        shared.fetch(self._folder)
        read = [self._read(part) for part in sorted(self._folder.glob("*.parquet"))]
        parts = [part for part in read if part is not None]
        return pd.concat(parts) if parts else pd.DataFrame({ID: []})

    def keep(self, rows: pd.DataFrame) -> None:
        """Takes in answers; those with an `error` are none."""
        good = rows[rows["error"] == ""]
        if good.empty:
            return
        write_json(self._folder / "inputs.json", self._inputs)
        half = self._folder / f"{digest(sorted(good[ID]))}.half"
        with report_disk_full(self._folder):
            good.to_parquet(half)
            part = half.replace(self._folder / f"{PART}{file_digest(half)}.parquet")
        shared.publish(self._folder / "inputs.json")
        shared.publish(part)

    def _read(self, part: Path) -> pd.DataFrame | None:
        """Reads a file; sets it aside where its bytes are not those of its name, or it can't be read."""
        try:
            if part.stem.startswith(PART) and part.stem != PART + file_digest(part):
                raise ValueError("its bytes are not as they were written")
            return pd.read_parquet(part)
        except (OSError, ValueError, pa.ArrowException) as error:
            shared.reject(part)
            self._store.quarantine(part, str(error))
            return None


def answers_of(models: Mapping[str, Responses], questions: Questions, ask: AskAll) -> dict[str, pd.DataFrame]:
    """Returns the answers of several models to the same questions.

    Args:
        models: model -> what it has answered. Two of one content are one.
        questions: the questions.
        ask: answers those that are missing. It is called again for those that failed, as when an engine died under
            them, and not at all where none is missing.

    Returns:
        model -> a row a question, in the order of their ids; what failed to the last has an `error`.
    """
    distinct = {model.lock: name for name, model in models.items()}
    failed = dict.fromkeys(models, pd.DataFrame({ID: []}))
    with ExitStack() as locks:
        for lock in sorted(distinct):  # whoever wants the same answers meanwhile waits for them, all in one order
            locks.enter_context(shared.exclusive(lock))
        for _ in range(ATTEMPTS):
            missing = {name: models[name].missing(questions) for name in distinct.values()}
            if not (wanted := {name: asked for name, asked in missing.items() if asked}):
                break
            for name, rows in _in_turns(ask(wanted)):
                models[name].keep(rows)
                failed[name] = pd.concat([failed[name], rows[rows["error"] != ""]])

    def found(model: Responses) -> pd.DataFrame:
        rows = pd.concat([failed[distinct[model.lock]], model.kept()])
        return rows.drop_duplicates(ID, keep="last").set_index(ID).loc[sorted(questions)].reset_index()

    return {name: found(model) for name, model in models.items()}


def _in_turns(answers: Iterable[tuple[str, pd.DataFrame]]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yields what comes within some seconds together, model by model."""
    waiting: dict[str, list[pd.DataFrame]] = {}
    since = time.monotonic()
    for name, rows in answers:
        waiting.setdefault(name, []).append(rows)
        if time.monotonic() - since > KEEP_SECONDS:
            yield from ((one, pd.concat(parts)) for one, parts in waiting.items())
            waiting, since = {}, time.monotonic()
    yield from ((one, pd.concat(parts)) for one, parts in waiting.items())
