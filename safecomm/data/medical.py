"""Medical questions: PubMedQA (arXiv 1909.06146), abstracts with a question that is answered yes, no or maybe.

A row of the hub's copy: `question`, `context` (`contexts`: the abstract's paragraphs), `long_answer`, `final_decision`.
The authors' own files are keyed by PubMed id and write the same columns in capitals, the paragraphs as `CONTEXTS`.
"""

from typing import Any

from safecomm.data import choices
from safecomm.data.choices import ChoiceQuestion
from safecomm.data.dataset import Counts, Dataset
from safecomm.data.rows import Example, Loaded
from safecomm.data.sources import Hub
from safecomm.data.table import Raw, Table, text_in

DECISIONS = ("yes", "no", "maybe")


def questions(table: Table) -> Loaded[ChoiceQuestion]:
    """Reads all questions; a row's abstract comes before its question."""
    table.column(["question"])
    table.column(["final_decision"])
    return choices.questions(table, _question)


def examples(table: Table) -> Loaded[Example]:
    """Returns all questions with their answers."""
    loaded = questions(table)
    return Loaded([Example(row.prompt, row.response) for row in loaded.rows], loaded.skipped)


def _question(row: Raw) -> ChoiceQuestion | str:
    named = {column.strip().casefold(): value for column, value in row.items()}
    decision, asked = text_in(named, "final_decision").casefold(), text_in(named, "question")
    if not asked:
        return "empty question"
    answer = DECISIONS.index(decision) if decision in DECISIONS else None
    text = "\n\n".join([*_paragraphs(named), asked])
    return choices.question(text, list(DECISIONS), answer)


def _paragraphs(named: Raw) -> list[str]:
    context: Any = named.get("context")
    paragraphs: Any = context.get("contexts") if isinstance(context, dict) else named.get("contexts")
    texts = [one for one in paragraphs if isinstance(one, str)] if isinstance(paragraphs, list) else []
    return [text.strip() for text in texts if text.strip()]


SETS: dict[str, Dataset] = {
    "pubmedqa": Dataset(
        title="PubMedQA: 1,000 questions on abstracts, answered yes, no or maybe by experts (arXiv 1909.06146)",
        roles=frozenset({"task"}),
        licence="MIT",
        source=Hub("qiaojin/PubMedQA", config="pqa_labeled", split="train"),
        files=("ori_pqal.json",),
        counts=Counts(prompts=1000),
        questions=questions,
    ),
    "pubmedqa-artificial": Dataset(
        title="PubMedQA: 211,269 questions generated from titles, answered yes or no",
        roles=frozenset({"train"}),
        licence="MIT",
        source=Hub("qiaojin/PubMedQA", config="pqa_artificial", split="train"),
        files=("ori_pqaa.json",),
        counts=Counts(examples=211_269, tokens=400),
        examples=examples,
    ),
}
