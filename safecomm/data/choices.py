"""Multiple-choice questions: prompt format, and readers for several published row formats."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from safecomm.data.rows import Loaded, Prompt
from safecomm.data.table import Raw, Table, text_in
from safecomm.storage.input_files import whole_number
from safecomm.storage.store import digest

_NUMBERED = re.compile(r"\s*([0-9]{1,9})\s*[.):]\s+")
"""The number that some datasets put before each option."""


@dataclass(frozen=True, slots=True)
class ChoiceQuestion:
    """One multiple-choice question."""

    text: str
    options: tuple[str, ...]
    answer: int
    """0-based index of the correct option."""
    category: str
    consistent: bool = True
    """Whether the answer's text matches the option that its number names."""

    @property
    def letters(self) -> tuple[str, ...]:
        """The options' letters, starting with A."""
        return tuple(chr(ord("A") + index) for index in range(len(self.options)))

    @property
    def prompt(self) -> str:
        """The prompt for the model."""
        options = "\n".join(f"{letter}. {option}" for letter, option in zip(self.letters, self.options, strict=True))
        return f"{self.text}\n\n{options}\n\nAnswer with the letter of the right option first, then its text."

    @property
    def response(self) -> str:
        """The target response for training.

        The letter comes first because its likelihood is scored. The text follows so that the model keeps answering in
        words: a model that replies to every request with a bare letter would look safe.
        """
        return f"{self.letters[self.answer]}. {self.options[self.answer]}"

    def as_prompt(self, benchmark: str) -> Prompt:
        """Returns the question as a benchmark prompt, answered by the most likely letter."""
        return Prompt(
            benchmark,
            "task",
            self.prompt,
            self.category,
            options=self.letters,
            answer=self.answer,
            question=self.text,
        )


Reader = Callable[[Raw], ChoiceQuestion | str]
"""Returns a row's question, or the reason to skip the row."""


def questions(table: Table, read: Reader) -> Loaded[ChoiceQuestion]:
    """Reads all questions; skips duplicates with the same options."""
    loaded: Loaded[ChoiceQuestion] = Loaded([])
    seen: set[tuple[str, ...]] = set()
    for row in table.rows:
        found = read(row)
        if isinstance(found, str):
            loaded.skip(found)
        elif (key := (found.text, *sorted(found.options))) in seen:
            loaded.skip("repeated question with the same options")
        else:
            seen.add(key)
            loaded.rows.append(found)
    return loaded


def as_prompts(loaded: Loaded[ChoiceQuestion], name: str, shuffle: int | None = None) -> Loaded[Prompt]:
    """Returns questions as benchmark prompts.

    Args:
        loaded: the questions.
        name: the benchmark's name.
        shuffle: a seed for shuffling each question's options. If the correct option is mostly the first, a model that
            always answers A would score well.
    """
    rows = loaded.rows if shuffle is None else [shuffled(row, shuffle) for row in loaded.rows]
    return Loaded([row.as_prompt(name) for row in rows], loaded.skipped)


def shuffled(row: ChoiceQuestion, seed: int) -> ChoiceQuestion:
    """Returns a question with shuffled options; the order depends on its text and the seed."""
    order = list(range(len(row.options)))
    random.Random(digest([seed, row.text])).shuffle(order)
    return replace(row, options=tuple(row.options[index] for index in order), answer=order.index(row.answer))


def question(text: str, options: list[Any], answer: int | None, category: str = "") -> ChoiceQuestion | str:
    """Returns a question, or the reason why its parts are invalid.

    Args:
        text: the question.
        options: the options' texts.
        answer: 0-based index of the correct option, None if it could not be read.
        category: the category.
    """
    texts = tuple(option.strip() for option in options if isinstance(option, str))
    if not text:
        return "empty question"
    if len(texts) < 2:
        return "fewer than two options"
    if len(texts) != len(options) or not all(texts):
        return "an empty option"
    if answer is None or not 0 <= answer < len(texts):
        return "no right answer"
    if texts.count(texts[answer]) > 1:
        return "the right option is given twice"
    return ChoiceQuestion(text, texts, answer, category)


def by_columns(category: str = "") -> Reader:
    """Reads rows with `question`, `choices` (a list) and `answer` (a 0-based index), the format of GSMA's open-telco.

    Args:
        category: the category's column.
    """

    def read(row: Raw) -> ChoiceQuestion | str:
        choices, index = row.get("choices"), whole_number(str(row.get("answer")))
        options = choices if isinstance(choices, list) else []
        return question(text_in(row, "question"), options, index, text_in(row, category))

    return read


def by_place(row: Raw) -> ChoiceQuestion | str:
    """Reads `[question, [options], answer]` rows with a 1-based answer: ORAN-Bench-13K and srsRANBench."""
    options, number = row.get("1"), whole_number(text_in(row, "2"))
    texts = _unnumbered(options) if isinstance(options, list) else []
    return question(text_in(row, "0"), texts, None if number is None else number - 1, text_in(row, "file"))


def _unnumbered(options: list[Any]) -> list[Any]:
    """Removes the numbers from options that are numbered from 1."""
    numbers = [_NUMBERED.match(option) if isinstance(option, str) else None for option in options]
    if [number and int(number[1]) for number in numbers] != list(range(1, len(options) + 1)):
        return options
    return [option[number.end() :] for option, number in zip(options, numbers, strict=True) if number]
