"""A cache of responses per question, so that a model never answers the same question twice."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from safecomm.errors import UnansweredError
from safecomm.serving.engine import Question
from safecomm.serving.stream import ID
from safecomm.storage import shared
from safecomm.storage.checksums import file_digest
from safecomm.storage.disk import report_disk_full
from safecomm.storage.store import Store, digest, write_json

ATTEMPTS = 3
KEEP_SECONDS = 10.0
"""Interval at which incoming answers are written; at most this much work is lost in a crash."""
PART = "part-"
"""Prefix of file names that end with the file's digest; files from older versions have other names."""
Questions = Mapping[str, Question]
"""id -> question."""
Ask = Callable[[Questions], Iterable[pd.DataFrame]]
"""Answers questions; yields tables with one row per question."""
AskAll = Callable[[Mapping[str, Questions]], Iterable[tuple[str, pd.DataFrame]]]
"""Answers the questions of several models."""


class Responses:
    """The responses of one model, with at most one adapter, under one protocol.

    They are stored as Parquet files in a folder of the store, one per batch of questions. A larger benchmark or another
    judge only requests missing responses; failed questions are retried next time. A file's name contains its digest: a
    damaged file is quarantined and its questions are asked again.
    """

    def __init__(self, store: Store, inputs: Mapping[str, Any]):
        """Opens the folder.

        Args:
            store: the store.
            inputs: everything that determines an answer apart from the question: model, adapter, system prompt,
                sampling, engine.
        """
        self._inputs = dict(inputs)
        self._store = store
        self._folder = store.folder("responses", digest(self._inputs))
        self.lock = store.root / "scratch" / f"responses-{self._folder.name}.lock"

    def missing(self, questions: Questions) -> dict[str, Question]:
        """Returns the questions without a stored answer."""
        known = set(self.kept()[ID])
        return {name: question for name, question in questions.items() if name not in known}

    def of(self, questions: Questions, ask: Ask) -> pd.DataFrame:
        """Returns one row per question; see `answers_of`."""
        return answers_of({"": self}, questions, lambda missing: (("", rows) for rows in ask(missing[""])))[""]

    def kept(self) -> pd.DataFrame:
        """Returns one row per stored answer."""
        shared.fetch(self._folder)
        read = [self._read(part) for part in sorted(self._folder.glob("*.parquet"))]
        parts = [part for part in read if part is not None]
        return pd.concat(parts) if parts else pd.DataFrame({ID: []})

    def keep(self, rows: pd.DataFrame) -> None:
        """Stores answers; skips those with an `error`."""
        good = rows[rows["error"] == ""]
        if good.empty:
            return
        write_json(self._folder / "inputs.json", self._inputs)
        half = self._folder / f"{digest(sorted(good[ID]))}.half"  # its digest, and so its name, is known once written
        with report_disk_full(self._folder):
            good.to_parquet(half)
            part = half.replace(self._folder / f"{PART}{file_digest(half)}.parquet")
        shared.publish(self._folder / "inputs.json")
        shared.publish(part)

    def _read(self, part: Path) -> pd.DataFrame | None:
        """Reads a file; quarantines it if its digest does not match its name or it is unreadable."""
        try:
            if part.stem.startswith(PART) and part.stem != PART + file_digest(part):
                raise ValueError("its content does not match its digest")
            return pd.read_parquet(part)
        except (OSError, ValueError, pa.ArrowException) as error:
            shared.reject(part)
            self._store.quarantine(part, str(error))
            return None


def answers_of(models: Mapping[str, Responses], questions: Questions, ask: AskAll) -> dict[str, pd.DataFrame]:
    """Returns the answers of several models to the same questions.

    Args:
        models: model -> its responses. Models with the same responses folder are asked only once.
        questions: the questions.
        ask: answers the missing questions. It is called again for questions that failed, e.g. because an engine died,
            and not at all if none are missing.

    Returns:
        model -> one row per question, ordered by question id.

    Raises:
        UnansweredError: if questions failed every time. An engine's failure is no answer of the model, so there is
            nothing to score; the answers of the other questions are kept.
    """
    distinct = {model.lock: name for name, model in models.items()}
    reason = ""
    with ExitStack() as locks:
        for lock in sorted(distinct):  # sorted to avoid deadlocks with other processes that want the same answers
            locks.enter_context(shared.exclusive(lock))
        for _ in range(ATTEMPTS):
            missing = {name: models[name].missing(questions) for name in distinct.values()}
            if not (wanted := {name: unanswered for name, unanswered in missing.items() if unanswered}):
                break
            for name, rows in _in_turns(ask(wanted)):
                models[name].keep(rows)
                reason = next((error for error in rows["error"] if error), reason)
        if failed := sum(len(models[name].missing(questions)) for name in distinct.values()):
            raise UnansweredError(
                f"{failed} of {len(questions) * len(distinct)} questions got no answer in {ATTEMPTS} attempts, the "
                f"others are kept; run it again to ask those; the last error: {reason or 'no answer came back'}"
            )

    def found(model: Responses) -> pd.DataFrame:
        rows = model.kept().drop_duplicates(ID, keep="last")
        return rows.set_index(ID).loc[sorted(questions)].reset_index()

    return {name: found(model) for name, model in models.items()}


def _in_turns(answers: Iterable[tuple[str, pd.DataFrame]]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Batches answers by time, and yields each batch model by model."""
    waiting: dict[str, list[pd.DataFrame]] = {}
    since = time.monotonic()
    for name, rows in answers:
        waiting.setdefault(name, []).append(rows)
        if time.monotonic() - since > KEEP_SECONDS:
            yield from ((one, pd.concat(parts)) for one, parts in waiting.items())
            waiting, since = {}, time.monotonic()
    yield from ((one, pd.concat(parts)) for one, parts in waiting.items())
