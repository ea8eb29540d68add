"""The answers that people look at: those of every headline arm on one split, aligned by prompt."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from safecomm.judging.best_of_n import is_tried
from safecomm.judging.verdicts import SHOWN, TEXTS, read_rows
from safecomm.report.cells import likeliest_option, text_in
from safecomm.report.points import Point
from safecomm.report.run import Headline, Run, in_words
from safecomm.statistics.metric_table import ASR, METRICS
from safecomm.storage.names import ROWS

COLUMNS = (*TEXTS, *SHOWN, "scores", "options")
LONGEST = 1500
"""Characters of an answer in W&B."""


@dataclass(frozen=True, slots=True)
class SamplePrompt:
    """A prompt of the split."""

    id: str
    kind: str
    benchmark: str
    """The benchmark's name, without its attack."""
    attack: str
    """What the attack adds to the benchmark's name; empty for plain prompts."""
    category: str
    text: str


@dataclass(frozen=True, slots=True)
class SampleAnswer:
    """An arm's answer to a prompt."""

    row: int
    """Its place in the evaluation, by which human labels name it (see `report/human_labels.py`)."""
    text: str
    """The prompt as this arm was asked it: of several tries, each arm has its own."""
    response: str
    verdict: str
    others: tuple[str, ...]
    """The other judges' verdicts, in the order of `Samples.judges`; empty for what they did not judge."""
    tried: bool
    """Whether it stands for several tries of a request, of which a label would say nothing."""

    @property
    def is_disputed(self) -> bool:
        """Whether the judges disagree on it."""
        return len({self.verdict, *filter(None, self.others)}) > 1


@dataclass(frozen=True, slots=True)
class ArmAnswers:
    """An arm's answers with the first seed of its best point."""

    arm: str
    settings: str
    evaluation: str
    """The key of the evaluation, by which human labels name it."""
    recommended: bool
    answers: dict[str, SampleAnswer]
    """By the prompt's id."""


@dataclass(frozen=True, slots=True)
class Samples:
    """All answers of the headline arms to the prompts of a split that are in the store."""

    prompts: list[SamplePrompt]
    """Harmful prompts first."""
    arms: list[ArmAnswers]
    judges: tuple[str, ...]
    """The judges of harmful answers after the deciding one."""
    split: str = "report"


def samples(run: Run, rows: list[Headline], split: str = "report") -> Samples:
    """Returns all answers of the headline arms on a split; arms whose answers are gone are left out."""
    judges = tuple(run.judge_names[1:])
    prompts: dict[str, SamplePrompt] = {}
    arms: list[ArmAnswers] = []
    for row in rows:
        key, found = _evaluation(run, row, split)
        if found is None:
            continue
        names, asked = _ids(found), _records(found)
        for name, prompt in zip(names, _prompts(names, asked, run), strict=True):
            prompts.setdefault(name, prompt)
        answers = _answers(asked, judges, is_tried(found).to_list())
        by_prompt = dict(zip(names, answers, strict=True))
        arms.append(ArmAnswers(row.arm, in_words(row.settings), key, row.recommended, by_prompt))
    order: dict[str, int] = {metric.kind: place for place, metric in enumerate(METRICS)}
    listed = sorted(prompts.values(), key=lambda one: (order.get(one.kind, len(order)), one.benchmark, one.attack))
    return Samples(listed, arms, judges, split)


def is_flipped(first: SampleAnswer, second: SampleAnswer) -> bool:
    """Returns whether two arms' answers to a prompt both have a verdict, and another one."""
    known = {word for metric in METRICS for word in (metric.hit, metric.miss)}
    return {first.verdict, second.verdict} <= known and first.verdict != second.verdict


def _evaluation(run: Run, row: Headline, split: str) -> tuple[str, pd.DataFrame | None]:
    """Returns the key and the judged rows of a headline row's first seed on a split."""
    keys = run.trials_of(row.arm, row.point, split)["evaluation"]
    key = str(keys.iloc[0]) if len(keys) else ""
    folder = run.stage("evaluation", key)
    return key, read_rows(folder) if key and (folder / ROWS).is_file() else None


def _ids(found: pd.DataFrame) -> list[str]:
    """Returns the prompts' ids; a prompt that a benchmark contains twice gets another one the second time."""
    again = found.groupby(["benchmark", "prompt_id"]).cumcount().to_numpy()
    names = found["prompt_id"].to_numpy(object)
    return [f"{name}.{number}" if number else name for name, number in zip(names, again, strict=True)]


def _records(found: pd.DataFrame) -> list[Point]:
    """Returns the columns that are shown, row by row; faster than `rows_of`, which matters for 100,000 answers."""
    names = [name for name in map(str, found) if name in COLUMNS or name.startswith("verdict@")]
    columns = [found[name].to_numpy(object) for name in names]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _prompts(names: list[str], asked: list[Point], run: Run) -> Iterator[SamplePrompt]:
    benchmarks = {name: _attack(run, str(name)) for name in {one["benchmark"] for one in asked}}
    for name, one in zip(names, asked, strict=True):
        category, text = text_in(one.get("category")), text_in(one.get("text"))
        yield SamplePrompt(name, str(one["kind"]), *benchmarks[one["benchmark"]], category, text)


def _attack(run: Run, benchmark: str) -> tuple[str, str]:
    """Returns a benchmark's name without its attack, and the attack (see `DatasetRef.benchmark`)."""
    refs = [ref for ref in run.sweep["evaluate"].get(ASR.kind, []) if isinstance(ref, dict) and ref.get("attack")]
    for ref in refs:
        if benchmark.startswith(f"{ref.get('name')}+"):
            return str(ref["name"]), benchmark.removeprefix(f"{ref['name']}+")
    return benchmark, ""


def _answers(asked: list[Point], judges: tuple[str, ...], tried: list[bool]) -> Iterator[SampleAnswer]:
    for place, (one, of_tries) in enumerate(zip(asked, tried, strict=True)):
        others = tuple(text_in(one.get(f"verdict@{judge}")) for judge in judges)
        verdict = text_in(one.get("verdict")) or "unscored"
        yield SampleAnswer(place, text_in(one.get("text")), _response(one), verdict, others, bool(of_tries))


def response_in(found: Mapping[str, Any]) -> str:
    """Returns the generated text, or the most likely option with its text, or the reason why there is neither.

    A long text is cut.
    """
    response = _response(found)
    return response if len(response) <= LONGEST else f"{response[:LONGEST]} … ({len(response)} characters)"


def _response(found: Mapping[str, Any]) -> str:
    """Returns the whole text of `response_in`."""
    if response := text_in(found.get("response")):
        return response
    if letter := likeliest_option(found):
        lines = text_in(found.get("text")).splitlines()  # the options stand in the prompt
        return next((line for line in lines if line.startswith(f"{letter}. ")), letter)
    reason = text_in(found.get("error"))
    return f"(no answer: {reason})" if reason else "(no answer)"
