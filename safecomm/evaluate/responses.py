"""Responses are kept per question: what a model has answered once, it is never asked again."""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
from filelock import FileLock

from safecomm.evaluate.engine import Question
from safecomm.evaluate.stream import ID
from safecomm.store import Store, digest, write_json

ATTEMPTS = 3
Questions = Mapping[str, Question]
"""id -> question."""
Ask = Callable[[Questions], pd.DataFrame]


class Responses:
    """What one model, with one adapter or none, answered under one way of asking.

    A folder of the store with a Parquet file for each time that something was asked. A larger benchmark, or another
    judge, asks only for what is missing; a question that got no answer is asked again the next time.
    """

    def __init__(self, store: Store, inputs: Mapping[str, Any]):
        """Opens the folder.

        Args:
            store: where it lies.
            inputs: all that decides an answer but the question: model, adapter, system prompt, sampling, engine.
        """
        self._inputs = dict(inputs)
        self._folder = store.folder("responses", digest(self._inputs))
        self._lock = store.root / "scratch" / f"responses-{self._folder.name}.lock"

    def missing(self, questions: Questions) -> dict[str, Question]:
        """Returns the questions that have not been answered."""
        known = set(self._kept()[ID])
        return {name: question for name, question in questions.items() if name not in known}

    def of(self, questions: Questions, ask: Ask) -> pd.DataFrame:
        """Returns a row a question, as `stream` does, in the order of their ids.

        Args:
            questions: the questions.
            ask: answers those that are missing, a row each. It is called again for those that failed, as when an engine
                died under them, and not at all where none is missing.
        """
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self._lock):  # whoever wants the same answers meanwhile waits for them
            failed = pd.DataFrame({ID: []})
            for _ in range(ATTEMPTS):
                if not (missing := self.missing(questions)):
                    break
                answers = ask(missing)
                self._keep(answers[answers["error"] == ""])
                failed = answers[answers["error"] != ""]
        found = pd.concat([self._kept(), failed]).set_index(ID)
        return found.loc[sorted(questions)].reset_index()

    def _kept(self) -> pd.DataFrame:
        parts = [pd.read_parquet(part) for part in sorted(self._folder.glob("*.parquet"))]
        return pd.concat(parts) if parts else pd.DataFrame({ID: []})

    def _keep(self, rows: pd.DataFrame) -> None:
        if rows.empty:
            return
        write_json(self._folder / "inputs.json", self._inputs)
        part = self._folder / f"{digest(sorted(rows[ID]))}.parquet"
        half = part.with_suffix(".half")
        rows.to_parquet(half)
        half.replace(part)
