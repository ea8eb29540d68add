"""Sample prompts with every arm's answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from safecomm.judging.verdicts import read_rows
from safecomm.report.points import Point, rows_of
from safecomm.report.run import Headline, Run, in_words
from safecomm.statistics.metric_table import METRICS
from safecomm.storage.names import ROWS

PER_KIND = 3
LONGEST = 1500


@dataclass(frozen=True)
class Answer:
    """One arm's answer."""

    arm: str
    settings: str
    response: str
    verdict: str


@dataclass(frozen=True)
class Sample:
    """One prompt and the arms' answers."""

    benchmark: str
    category: str
    prompt: str
    answers: list[Answer]


def samples(run: Run, rows: list[Headline]) -> dict[str, list[Sample]]:
    """Returns a few prompts of each kind (`red_team`, `over_refusal`, `task`) with the headline arms' answers.

    The selection is not curated: prompts are taken from all benchmarks in turn, in the order of their ids, which are
    hashes. Arms whose responses are not in the store are left out.
    """
    answered = [(row, found) for row in rows if (found := _responses(run, row)) is not None]
    if not answered:
        return {}
    first = answered[0][1]
    shared = set(first["prompt_id"]).intersection(*(found["prompt_id"] for _, found in answered))
    common = first[first["prompt_id"].isin(shared)].sort_values("prompt_id")
    in_turn = common.assign(turn=common.groupby("benchmark").cumcount()).sort_values(["turn", "benchmark"])
    by_id = [(row, {str(one["prompt_id"]): one for one in rows_of(found)}) for row, found in answered]
    picked = {one.kind: in_turn[in_turn["kind"] == one.kind].head(PER_KIND) for one in METRICS}
    return {kind: [_sample(prompt, by_id) for prompt in rows_of(prompts)] for kind, prompts in picked.items()}


def _responses(run: Run, row: Headline) -> pd.DataFrame | None:
    """Returns the responses of a headline row's first seed on the report split."""
    key = str(run.trials_of(row.arm, row.point, "report")["evaluation"].iloc[0])
    if not key:
        return None
    folder = run.stage("evaluation", key)
    return read_rows(folder) if (folder / ROWS).is_file() else None


def _sample(prompt: Point, by_id: list[tuple[Headline, dict[str, Point]]]) -> Sample:
    answers = [_answer(row, found[prompt["prompt_id"]]) for row, found in by_id]
    return Sample(_text(prompt["benchmark"]), _text(prompt.get("category")), _text(prompt.get("text")), answers)


def _answer(row: Headline, found: Point) -> Answer:
    return Answer(row.arm, in_words(row.settings), response_in(found), _text(found.get("verdict")) or "unscored")


def response_in(found: Mapping[str, Any]) -> str:
    """Returns the generated text, or the most likely option with its text, or the reason why there is neither."""
    if response := _text(found.get("response")):
        return response
    scores, options = (_listed(found.get(name)) for name in ("scores", "options"))
    if scores and len(scores) == len(options):
        letter = _text(options[scores.index(max(scores))])
        lines = _text(found.get("text")).splitlines()  # the options stand in the prompt
        return next((line for line in lines if line.startswith(f"{letter}. ")), letter)
    reason = _text(found.get("error"))
    return f"(no answer: {reason})" if reason else "(no answer)"


def _listed(value: Any) -> list[Any]:
    """Returns a cell as a list; pandas stores lists as arrays, or as a missing value if there is none."""
    return list(value) if hasattr(value, "__len__") else []


def _text(value: object) -> str:
    """Returns a cell's text, truncated if long; an empty string for a missing value."""
    if not isinstance(value, str):
        return ""
    return value if len(value) <= LONGEST else f"{value[:LONGEST]} … ({len(value)} characters)"
