"""Users' own files become benchmarks by their column names."""

import json
from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError
from small_sweep import LEAST

from safecomm.data.catalog.registry import load_examples, load_prompts
from safecomm.data.custom import Columns
from safecomm.data.rows import Example, Prompt
from safecomm.errors import DataError
from safecomm.plan.data import all_prompts, check_data, non_commercial
from safecomm.spec import Sweep

ROWS = [
    {"Ask": "Open the cabinet?", "Area": "site", "Options": ["yes", "no"], "Right": "B"},
    {"Ask": "Close the cabinet?", "Area": "site", "Options": ["yes", "no"], "Right": "yes"},
    {"Ask": "", "Area": "site", "Options": ["yes", "no"], "Right": "A"},
]


@pytest.fixture(params=["csv", "json", "jsonl", "parquet"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"own.{request.param}"
    table = pd.DataFrame(ROWS)
    if request.param == "csv":
        table.to_csv(path, index=False)
    elif request.param == "parquet":
        table.to_parquet(path)
    else:
        lines = request.param == "jsonl"
        path.write_text("\n".join(map(json.dumps, ROWS)) if lines else json.dumps(ROWS))
    return path


@pytest.mark.parametrize("kind", ["red_team", "over_refusal"])
def test_prompts_of_any_format(path: Path, kind: str) -> None:
    loaded = load_prompts("acme", path, columns=Columns("ask", category="area"), kind=kind)
    assert [(row.text, row.category, row.kind, row.benchmark) for row in loaded.rows] == [
        ("Open the cabinet?", "site", kind, "acme"),
        ("Close the cabinet?", "site", kind, "acme"),
    ]
    assert loaded.skipped == {"empty prompt": 1}


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_own_files_become_training_sets(suffix: str, tmp_path: Path) -> None:
    rows = [
        {"Ask": "Which timer?", "Tell": "T310."},
        {"Ask": "Which node?", "Tell": ""},
        {"Ask": "which timer?", "Tell": "again"},
    ]
    path = tmp_path / f"own.{suffix}"
    text = pd.DataFrame(rows).to_csv(index=False) if suffix == "csv" else "\n".join(map(json.dumps, rows))
    path.write_text(text)
    loaded = load_examples("acme", path, columns=Columns("ask", response="tell"))
    assert loaded.rows == [Example("Which timer?", "T310.")]
    assert loaded.skipped == {"empty response": 1, "repeated prompt": 1}
    with pytest.raises(DataError, match=r"acme: .*no column said; its columns are: Ask, Tell"):
        load_examples("acme", path, columns=Columns("ask", response="said"))


def test_a_sweep_trains_on_an_own_file_and_asks_nothing_that_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    asked = [prompt.text for prompt in load_prompts("lab-harm").rows[:3]]
    path.write_text("q,a\n" + "".join(f"{text},no\n" for text in asked))
    own = {"name": "acme", "path": str(path), "prompt": "q", "response": "a"}
    finetune = {**LEAST["finetune"], "data": [own], "safety_data": own}  # type: ignore[dict-item]
    sweep = Sweep.model_validate({**LEAST, "arms": {}, "finetune": finetune})
    assert non_commercial(sweep) == []
    assert not {prompt.text for prompt in all_prompts(sweep)} & set(asked)
    check_data(sweep)


@pytest.mark.parametrize(
    ("place", "ref", "message"),
    [
        ("finetune", {"prompt": "q"}, "to use your own file as train data, set response"),
        ("evaluate", {"prompt": "q", "response": "a"}, "red_team prompts have no answers to train on; remove response"),
        ("finetune", {"response": "a"}, "response describe your own file; set prompt too"),
    ],
)
def test_training_sets_need_a_column_of_answers_and_benchmarks_have_none(
    place: str, ref: dict[str, str], message: str, tmp_path: Path
) -> None:
    own = {"name": "lab-telecom", "path": str(tmp_path / "own.csv"), **ref}
    key = "data" if place == "finetune" else "red_team"
    section = {**LEAST[place], key: [own]}  # type: ignore[dict-item]
    with pytest.raises(ValidationError) as refused:
        Sweep.model_validate({**LEAST, "arms": {}, place: section})
    assert message in str(refused.value)


def test_multiple_choice_takes_letters_and_texts(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.write_text(json.dumps(ROWS))
    loaded = load_prompts("acme", path, columns=Columns("Ask", choices=("Options",), answer="Right"), kind="task")
    assert [row.answer for row in loaded.rows] == [1, 0] and loaded.skipped == {"empty question": 1}


@pytest.mark.parametrize(("first", "right"), [(0, 1), (1, 0)])
def test_options_in_separate_columns_and_numbered_answers(tmp_path: Path, first: int, right: int) -> None:
    path = tmp_path / "own.csv"
    path.write_text("q,a,b,c,key\nWhich?,one,two,,1\n")
    columns = Columns("q", choices=("a", "b", "c"), answer="key", first=first)
    (row,) = load_prompts("acme", path, columns=columns, kind="task").rows
    assert (row.options, row.answer) == (("A", "B"), right)


def test_missing_column_lists_the_existing_ones(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("q,a\nWhich?,one\n")
    with pytest.raises(DataError, match=r"acme: .*no column question; its columns are: q, a"):
        load_prompts("acme", path, columns=Columns("question"), kind="red_team")


def test_free_form_answers_have_a_reference(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("q,a\nHow many?,Two\nHow few?,\n")
    loaded = load_prompts("acme", path, columns=Columns("q", reference="a"), kind="task")
    assert [(row.text, row.reference, row.grading) for row in loaded.rows] == [("How many?", "Two", "grader")]
    assert loaded.skipped == {"no reference answer": 1}


def test_shuffling_options_keeps_and_moves_the_right_one(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("q,a,b,c,key\n" + "".join(f"Question {n}?,right {n},wrong,other,A\n" for n in range(60)))
    columns = Columns("q", choices=("a", "b", "c"), answer="key")

    def load(seed: int | None) -> list[Prompt]:
        return load_prompts("exam", path, columns=columns, kind="task", shuffle=seed).rows

    shuffled = load(1)
    for number, row in enumerate(shuffled):
        assert row.answer is not None and f"{'ABC'[row.answer]}. right {number}\n" in row.text
    assert {row.answer for row in load(None)} == {0} and {row.answer for row in shuffled} == {0, 1, 2}
    assert shuffled == load(1) != load(2)
    with pytest.raises(DataError, match="no options"):
        load_prompts("lab-harm", shuffle=1)


def test_blank_option_keeps_its_letter(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("q,a,b,c,d,key\nWhich?,one,,three,four,C\nWhich now?,one,,three,four,B\n")
    columns = Columns("q", choices=("a", "b", "c", "d"), answer="key")
    loaded = load_prompts("exam", path, columns=columns, kind="task")
    (row,) = loaded.rows
    assert row.answer == 1 and "B. three" in row.text
    assert loaded.skipped == {"no right answer": 1}


def test_split_does_not_depend_on_options(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    lines = [f"Question {n}?,right {n},wrong {other},A\n" for n in range(40) for other in range(3)]
    path.write_text("q,a,b,key\n" + "".join(lines))
    columns = Columns("q", choices=("a", "b"), answer="key")
    prompts = [row for seed in (None, 1) for row in _questions(path, columns, seed)]
    sides: dict[str, set[str]] = {}
    for row in prompts:
        sides.setdefault(row.question, set()).add(row.side())
    assert len(prompts) == 240 and len(sides) == 40
    assert {len(found) for found in sides.values()} == {1} and set.union(*sides.values()) == {"search", "report"}


def _questions(path: Path, columns: Columns, seed: int | None) -> list[Prompt]:
    return load_prompts("exam", path, columns=columns, kind="task", shuffle=seed).rows
