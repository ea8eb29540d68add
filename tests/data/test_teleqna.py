"""TeleQnA: questions are scored by answer number, unusable rows are counted, and no question is in both splits."""

import json
from pathlib import Path

import pytest
import pyzipper

from safecomm.data.catalog.registry import DATASETS, load_examples, load_prompts
from safecomm.data.splits import is_training_row
from safecomm.data.table import Table
from safecomm.data.telecom import examples, questions, remarks
from safecomm.errors import DataError


def row(number: int, **changes: str) -> dict[str, str]:
    """An invented question, its keys in no particular order."""
    fields = {
        "answer": "option 2: a spoon",
        "category": "Lexicon",
        "option 2": "a spoon",
        "question": f"What stirs soup number {number}?",
        "option 1": "a fork",
        "option 3": "a knife",
        "explanation": "Spoons do.",
    }
    return {key: value for key, value in (fields | changes).items() if value != "absent"}


def table(*rows: dict[str, str]) -> Table:
    return Table(list(rows), "soups.txt")


ROWS = [row(number) for number in range(200)]


def test_question_and_answer_format():
    [question] = questions(table(row(1))).rows
    assert question.prompt.splitlines()[:5] == [
        "What stirs soup number 1?",
        "",
        "A. a fork",
        "B. a spoon",
        "C. a knife",
    ]
    assert question.response == "B. a spoon"
    assert question.prompt.splitlines()[-1].startswith("Answer with the letter")


def test_prompts_have_letters_and_the_right_index():
    for prompt in DATASETS["teleqna"].benchmark(table(*ROWS), "teleqna").rows:
        assert (prompt.benchmark, prompt.kind, prompt.category) == ("teleqna", "task", "Lexicon")
        assert prompt.options == ("A", "B", "C")
        assert prompt.answer == 1


def test_training_answers_start_with_the_scored_letter():
    """The likelihood of the letter decides, so the letter must be the first thing that training raises."""
    by_prompt = {question.prompt: question for question in questions(table(*ROWS)).rows}
    for example in examples(table(*ROWS)).rows:
        question = by_prompt[example.prompt]
        assert example.response.startswith(question.letters[question.answer])


def test_each_question_is_on_one_side():
    trained = {example.prompt for example in examples(table(*ROWS)).rows}
    tested = {prompt.text for prompt in DATASETS["teleqna"].benchmark(table(*ROWS), "teleqna").rows}
    assert not trained & tested
    assert len(trained) + len(tested) == len(ROWS)
    assert 20 < len(tested) < 60


def test_a_question_repeated_with_other_options_stays_on_its_side():
    again = [row(number, **{"option 1": "a whisk"}) for number in range(200)]
    rewritten = [row(number, question=f"what stirs SOUP number {number}") for number in range(200)]
    tested = DATASETS["teleqna"].benchmark(table(*ROWS, *again, *rewritten), "teleqna").rows
    assert len(tested) == 3 * len(DATASETS["teleqna"].benchmark(table(*ROWS), "teleqna").rows)
    assert not any(is_training_row(prompt.text.split("\n")[0]) for prompt in tested)


def test_answer_number_wins_over_differing_text():
    odd = row(1, answer="option 3: a kniff")
    assert questions(table(odd)).rows[0].answer == 2
    assert list(remarks(table(odd, row(2))).values()) == [1]


def test_surrounding_spaces_are_ignored():
    odd = row(1, answer="option 2: a spoon ", **{"option 2": " a spoon"})
    assert list(remarks(table(odd)).values()) == [0]


def test_options_are_ordered_by_number_without_gaps():
    many = row(1, **{f"option {number}": f"thing {number}" for number in (10, 9, 3)}, answer="option 10: thing 10")
    [question] = questions(table(many | {"option 1": ""})).rows
    assert question.options == ("a spoon", "thing 3", "thing 9", "thing 10")
    assert question.answer == 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"question": " "}, "empty question"),
        ({"option 1": "absent", "option 3": ""}, "fewer than two options"),
        ({"answer": "absent"}, "no right answer"),
        ({"answer": "a spoon"}, "no right answer"),
        ({"answer": "option 4: a ladle"}, "no right answer"),
        ({"option 1": "a spoon"}, "the right option is given twice"),
        ({"question": "What stirs soup number 7?"}, "repeated question with the same options"),
    ],
)
def test_unusable_rows_are_counted_with_their_reason(changes: dict[str, str], reason: str):
    loaded = questions(table(row(7), row(8, **changes)))
    assert loaded.skipped == {reason: 1}
    assert len(loaded.rows) == 1


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder with a small file in the authors' form: one object, CRLF, AES-encrypted."""
    text = json.dumps({f"question {number}": row(number) for number in range(50)}, indent=1).replace("\n", "\r\n")
    with pyzipper.AESZipFile(tmp_path / "TeleQnA.zip", "w", encryption=pyzipper.WZ_AES) as archive:
        archive.setpassword(DATASETS["teleqna"].password.encode())
        archive.writestr("TeleQnA.txt", text)
    return tmp_path


def test_archive_text_and_folder_are_the_same(published: Path):
    zipped = load_prompts("teleqna", published / "TeleQnA.zip")
    assert load_prompts("teleqna", published) == zipped
    with pyzipper.AESZipFile(published / "TeleQnA.zip") as archive:
        archive.extract("TeleQnA.txt", published / "unpacked", pwd=DATASETS["teleqna"].password.encode())
    assert load_prompts("teleqna", published / "unpacked" / "TeleQnA.txt") == zipped
    assert len(zipped.rows) + len(load_examples("teleqna", published).rows) == 50


def test_other_files_are_rejected_with_their_columns(tmp_path: Path):
    (tmp_path / "other.json").write_text('[{"Statement": "x", "Answer": "y"}]')
    with pytest.raises(
        DataError, match=r"teleqna: .*other\.json: no column question; its columns are: Statement, Answer"
    ):
        load_prompts("teleqna", tmp_path / "other.json")
