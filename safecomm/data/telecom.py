"""Telecom benchmarks, and TeleQnA (arXiv 2310.15051), which is also used for training.

A row of TeleQnA, keyed `question 17`: `question`, `option 1` to `option N` (N is 2 to 5), `answer` as `option K: text`,
`explanation`, `category`. K determines the correct option; in a few rows the text after it differs. TSpec-LLM has the
same format with underscores.
"""

import re
from dataclasses import replace

from safecomm.data import choices
from safecomm.data.choices import ChoiceQuestion
from safecomm.data.dataset import Counts, Dataset
from safecomm.data.rows import BY_GRADER, Example, Loaded, Prompt
from safecomm.data.sources import GITHUB, RAW, Hub, Web
from safecomm.data.splits import is_training_row
from safecomm.data.table import Raw, Table, collected, text_in

_OPTION = re.compile(r"option[ _]([0-9]{1,9})")
_ANSWER = re.compile(r"option[ _]([0-9]{1,9})\s*:?(.*)", re.DOTALL)


def questions(table: Table) -> Loaded[ChoiceQuestion]:
    """Reads all questions of TeleQnA, from both sides of the train-test split."""
    table.column(["question"])
    return choices.questions(table, numbered_options)


def held_out(table: Table) -> Loaded[ChoiceQuestion]:
    """Returns the questions of the test set."""
    loaded = questions(table)
    return Loaded([row for row in loaded.rows if not is_training_row(row.text)], loaded.skipped)


def examples(table: Table) -> Loaded[Example]:
    """Returns the questions of the training set with their answers."""
    loaded = questions(table)
    return Loaded(
        [Example(row.prompt, row.response) for row in loaded.rows if is_training_row(row.text)], loaded.skipped
    )


def remarks(table: Table) -> dict[str, int]:
    """Counts rows that are used but unusual."""
    differing = sum(not row.consistent for row in questions(table).rows)
    return {"answer text differs from the option that its number names; the number counts": differing}


def numbered_options(row: Raw) -> ChoiceQuestion | str:
    """Returns a row's question, or the reason to skip the row."""
    named = {column.strip().casefold(): column for column in row}
    numbered = {int(key[1]): text_in(row, named[key[0]]) for name in named if (key := _OPTION.fullmatch(name))}
    options = {number: option for number, option in sorted(numbered.items()) if option}
    answer = _ANSWER.fullmatch(text_in(row, named.get("answer")))
    index = list(options).index(int(answer[1])) if answer and int(answer[1]) in options else None
    found = choices.question(
        text_in(row, named.get("question")), list(options.values()), index, text_in(row, named.get("category"))
    )
    if isinstance(found, str) or answer is None:
        return found
    return replace(found, consistent=answer[2].strip() == options[int(answer[1])])


def open_prompts(table: Table, name: str) -> Loaded[Prompt]:
    """Returns the questions of Tele-Eval's test set, with reference answers for a grader."""
    loaded = _answered(table)
    rows = [
        Prompt(name, "task", row.prompt, reference=row.response, grading=BY_GRADER)
        for row in loaded.rows
        if not is_training_row(row.prompt)
    ]
    return Loaded(rows, loaded.skipped)


def open_examples(table: Table) -> Loaded[Example]:
    """Returns the questions of Tele-Eval's training set with their answers."""
    loaded = _answered(table)
    return Loaded([row for row in loaded.rows if is_training_row(row.prompt)], loaded.skipped)


def _answered(table: Table) -> Loaded[Example]:
    text, answer = table.column(["statement", "question"]), table.column(["answer"])

    def read(row: Raw) -> tuple[str, Example] | str:
        asked, reference = text_in(row, text), text_in(row, answer)
        return (asked, Example(asked, reference)) if reference else "no right answer"

    return collected(table, read)


def _gsma(config: str, title: str, category: str = "subject") -> Dataset:
    """Returns one of GSMA's open-telco tasks; results are comparable with its leaderboard."""
    return Dataset(
        title=f"GSMA open-telco: {title}",
        roles=frozenset({"task"}),
        licence="see its page",
        source=Hub("GSMA/ot-full", config=config, split="test"),
        files=(f"{config}.parquet", f"{config}.jsonl", f"{config}.json"),
        questions=lambda table: choices.questions(table, choices.by_columns(category)),
    )


def _by_place(title: str, repo: str, files: tuple[str, ...]) -> Dataset:
    return Dataset(
        title=title,
        roles=frozenset({"task"}),
        licence="MIT",
        source=Hub(repo, split="train"),
        files=files,
        questions=lambda table: choices.questions(table, choices.by_place),
    )


def _graded(config: str, title: str, grading: str, instruction: str) -> Dataset:
    """Returns a GSMA task with open questions, graded against a reference."""

    def graded(table: Table, name: str) -> Loaded[Prompt]:
        text, answer = table.column(["question", "text", "content"]), table.column(["answer", "group", "target"])
        category = table.find(["category", "subject", "difficulty"])

        def read(row: Raw) -> tuple[str, Prompt] | str:
            asked, reference = text_in(row, text), ("" if row.get(answer) is None else str(row[answer])).strip()
            prompt, own = f"{asked}\n\n{instruction}", text_in(row, category)
            found = Prompt(name, "task", prompt, own, reference=reference, grading=grading)
            return (asked, found) if reference else "no right answer"

        return collected(table, read)

    return replace(_gsma(config, title), prompts=graded, questions=None)


SETS: dict[str, Dataset] = {
    "teleqna": Dataset(
        title="TeleQnA: 10,000 multiple-choice questions on telecommunications",
        roles=frozenset({"train", "task"}),
        licence="MIT",
        source=Web(
            f"{RAW}/netop-team/TeleQnA/ed3a5fe49ae6cb353499b86b4ad74b2debe7e3db/TeleQnA.zip",
            f"{GITHUB}/netop-team/TeleQnA",
        ),
        files=("TeleQnA.txt", "TeleQnA.zip"),
        counts=Counts(prompts=2013, examples=7981, tokens=100),
        password="teleqnadataset",
        questions=held_out,
        examples=examples,
        remarks=remarks,
    ),
    "tele-eval": Dataset(
        title="Tele-Eval: 750,000 open questions on telecommunications (arXiv 2409.05314); needs a grader",
        roles=frozenset({"train", "task"}),
        licence="MIT",
        source=Hub("AliMaatouk/Tele-Eval", split="data"),
        files=("Tele-Eval.jsonl",),
        prompts=open_prompts,
        needs_grader=True,
        examples=open_examples,
    ),
    "tspec-llm": Dataset(
        title="TSpec-LLM: 100 multiple-choice questions on 3GPP specifications (arXiv 2406.01768)",
        roles=frozenset({"task"}),
        licence="CC BY-NC 4.0; gated",
        source=Hub("rasoul-nikbakht/TSpec-LLM", split="train"),
        files=("Sampled_3GPP_TR_Questions.json",),
        questions=lambda table: choices.questions(table, numbered_options),
    ),
    "oran-bench-13k": _by_place(
        "ORAN-Bench-13K: multiple-choice questions on O-RAN specifications (arXiv 2407.06245)",
        "prnshv/ORANBench",
        ("fin_*.json",),
    ),
    "srsranbench": _by_place(
        "srsRANBench: 1,502 multiple-choice questions on the srsRAN code base",
        "prnshv/srsRANBench",
        ("srsRANBench.json", "srsran*.json"),
    ),
    "gsma-teleqna": _gsma("teleqna", "TeleQnA"),
    "gsma-oranbench": _gsma("oranbench", "1,500 questions on O-RAN specifications", "difficulty"),
    "gsma-srsranbench": _gsma("srsranbench", "1,502 questions on the srsRAN code base"),
    "gsma-sixg-bench": _gsma("sixg_bench", "3,722 questions on 6G reasoning", "task_name"),
    "gsma-teletables": _gsma("teletables", "500 questions on tables of 3GPP specifications"),
    "gsma-telemath": _graded(
        "telemath",
        "500 problems of telecom mathematics",
        "boxed-number",
        r"Solve it step by step and give the final number as \boxed{number}.",
    ),
    "gsma-telelogs": _graded(
        "telelogs",
        "root causes of throughput loss in 5G drive tests",
        "boxed-integer",
        r"Give the number of the root cause as \boxed{number}.",
    ),
    "gsma-3gpp-tsg": _graded(
        "3gpp_tsg",
        "3GPP texts and the working groups that they belong to",
        "working-group",
        "Name the 3GPP working group that this text belongs to, e.g. RAN1.",
    ),
}


def _lite(entry: Dataset) -> Dataset:
    """Returns GSMA's smaller sample of one of its tasks."""
    source = Hub("GSMA/ot-lite", config=entry.source.config, split="test") if isinstance(entry.source, Hub) else None
    return replace(entry, title=f"{entry.title}; the sample of ot-lite", source=source)


SETS |= {name.replace("gsma-", "gsma-lite-"): _lite(entry) for name, entry in SETS.items() if name.startswith("gsma-")}
