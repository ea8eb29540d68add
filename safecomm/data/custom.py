"""User-defined benchmarks and training sets: files whose columns the sweep names."""

from dataclasses import dataclass
from typing import Any

from safecomm.data import choices
from safecomm.data.choices import ChoiceQuestion, question
from safecomm.data.rows import BY_GRADER, Example, Kind, Loaded, Prompt
from safecomm.data.table import Raw, Table, collected, text_in
from safecomm.storage.input_files import whole_number


@dataclass(frozen=True, slots=True)
class Columns:
    """The roles of a file's columns; names are case-insensitive."""

    prompt: str
    """The prompt or the question."""
    category: str | None = None
    """The category."""
    choices: tuple[str, ...] = ()
    """For multiple choice: one column with a list of options, or one column per option."""
    answer: str | None = None
    """For multiple choice: the correct option's number, letter or text."""
    first: int = 0
    """The number of the first option if answers are numbers: 0 or 1."""
    reference: str | None = None
    """For open questions: the reference answer for the grader."""
    response: str | None = None
    """For training: the answer to train on."""


def prompts(table: Table, name: str, kind: Kind, columns: Columns, shuffle: int | None = None) -> Loaded[Prompt]:
    """Returns the prompts of a table.

    Raises:
        DataError: if a column is missing.
    """
    for column in (columns.prompt, columns.category, columns.answer, columns.reference, *columns.choices):
        if column:
            table.column([column.casefold()])
    if columns.choices:
        questions = choices.questions(table, lambda row: _question(table, row, columns))
        return choices.as_prompts(questions, name, shuffle)
    grading = BY_GRADER if columns.reference else ""

    def read(row: Raw) -> tuple[str, Prompt] | str:
        text, category, reference = (
            text_in(row, _found(table, column)) for column in (columns.prompt, columns.category, columns.reference)
        )
        if columns.reference and not reference:
            return "no reference answer"
        return text, Prompt(name, kind, text, category, reference=reference, grading=grading)

    return collected(table, read)


def examples(table: Table, columns: Columns) -> Loaded[Example]:
    """Returns the training examples of a table.

    Raises:
        DataError: if a column is missing.
    """
    assert columns.response, "the spec rejects training files without it"
    prompt, response = (table.column([column.casefold()]) for column in (columns.prompt, columns.response))

    def read(row: Raw) -> tuple[str, Example] | str:
        example = Example(text_in(row, prompt), text_in(row, response))
        return (example.prompt, example) if example.response else "empty response"

    return collected(table, read)


def _found(table: Table, column: str | None) -> str | None:
    return table.find([column.casefold()]) if column else None


def _question(table: Table, row: Raw, columns: Columns) -> ChoiceQuestion | str:
    options = [row.get(_found(table, column) or "") for column in columns.choices]
    if len(options) == 1 and isinstance(options[0], list):
        options = options[0]
    stated = row.get(_found(table, columns.answer) or "")
    answer = "" if stated is None else str(stated).strip()
    given = [index for index, option in enumerate(options) if isinstance(option, str) and option.strip()]
    named = _index(answer, options, columns.first)  # counts blank options, which keep their letters
    index = given.index(named) if named in given else None
    text, category = text_in(row, _found(table, columns.prompt)), text_in(row, _found(table, columns.category))
    return question(text, [options[position] for position in given], index, category)


def _index(answer: str, options: list[Any], first: int) -> int | None:
    """Returns the 0-based index of the option that an answer names."""
    if (number := whole_number(answer)) is not None:
        return number - first
    if answer in options:
        return options.index(answer)
    letter = answer.upper()
    return ord(letter) - ord("A") if len(letter) == 1 and letter.isalpha() else None
