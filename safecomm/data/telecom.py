"""TeleQnA: multiple-choice questions on telecommunications (arXiv 2310.15051).

A published row, keyed `question 17`: `question`, `option 1` to `option N` (N is 2 to 5), `answer` as `option K: text`,
`explanation`, `category`. The right option is the one that K names: in a few rows the text after it differs.
"""

import re
from dataclasses import dataclass

from safecomm.data.rows import Example, Loaded, Prompt
from safecomm.data.splits import is_training_row
from safecomm.data.table import Raw, Table, text_in

_OPTION = re.compile(r"option (\d+)")
_ANSWER = re.compile(r"option (\d+)\s*:?(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Question:
    """One multiple-choice question."""

    text: str
    options: tuple[str, ...]
    answer: int
    """0-based index of the right option."""
    category: str
    consistent: bool
    """Whether the text beside the answer's number is that option's text."""

    @property
    def letters(self) -> tuple[str, ...]:
        """The options' letters, from A."""
        return tuple(chr(ord("A") + index) for index in range(len(self.options)))

    @property
    def prompt(self) -> str:
        """What a model is asked."""
        options = "\n".join(f"{letter}. {option}" for letter, option in zip(self.letters, self.options, strict=True))
        return f"{self.text}\n\n{options}\n\nAnswer with the letter of the right option first, then its text."

    @property
    def response(self) -> str:
        """What a model is trained to say.

        The letter comes first because its likelihood is what is scored. The text follows so that a model does not
        unlearn to answer in words: one that replies to every request with a bare letter would look safe.
        """
        return f"{self.letters[self.answer]}. {self.options[self.answer]}"


def questions(table: Table) -> Loaded[Question]:
    """Reads all questions, whichever side of the train-test split they are on."""
    text = table.column(["question"])
    loaded: Loaded[Question] = Loaded([])
    seen: set[tuple[str, ...]] = set()
    for row in table.rows:
        found = _question(row, text)
        if isinstance(found, str):
            loaded.skip(found)
        elif (key := (found.text, *sorted(found.options))) in seen:
            loaded.skip("repeated question with the same options")
        else:
            seen.add(key)
            loaded.rows.append(found)
    return loaded


def prompts(table: Table, name: str) -> Loaded[Prompt]:
    """Returns the questions of the test side as prompts."""
    loaded = questions(table)
    return Loaded([_as_prompt(row, name) for row in loaded.rows if not is_training_row(row.text)], loaded.skipped)


def examples(table: Table) -> Loaded[Example]:
    """Returns the questions of the training side with their answers."""
    loaded = questions(table)
    return Loaded(
        [Example(row.prompt, row.response) for row in loaded.rows if is_training_row(row.text)], loaded.skipped
    )


def remarks(table: Table) -> dict[str, int]:
    """Counts used rows that are out of the ordinary."""
    differing = sum(not row.consistent for row in questions(table).rows)
    return {"answer text differs from the option that its number names; the number counts": differing}


def _as_prompt(row: Question, name: str) -> Prompt:
    return Prompt(name, "telecom", row.prompt, row.category, options=row.letters, answer=row.answer)


def _question(row: Raw, column: str) -> Question | str:
    """Returns a row's question, or why it has none."""
    text = text_in(row, column)
    numbered = {int(key[1]): text_in(row, key[0]) for name in row if (key := _OPTION.fullmatch(name))}
    options = {number: option for number, option in sorted(numbered.items()) if option}
    answer = _ANSWER.fullmatch(text_in(row, "answer"))
    if not text:
        return "empty question"
    if len(options) < 2:
        return "fewer than two options"
    if answer is None or int(answer[1]) not in options:
        return "no right answer"
    right = int(answer[1])
    if list(options.values()).count(options[right]) > 1:
        return "the right option is given twice"
    consistent = answer[2].strip() == options[right]
    return Question(text, tuple(options.values()), list(options).index(right), text_in(row, "category"), consistent)
