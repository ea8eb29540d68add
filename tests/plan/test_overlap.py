"""Prompts that a sweep trains on are left out of its benchmarks, whatever name the data has."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from small_sweep import LEAST

from safecomm.data.catalog.registry import load_examples
from safecomm.data.overlap import contained
from safecomm.data.rows import Example, Prompt
from safecomm.errors import DataError
from safecomm.plan.data import all_prompts, overlaps
from safecomm.spec import Sweep

QUESTIONS = [f"Which network function number {at} handles session management in release {at}?" for at in range(20)]


def prompt(text: str) -> Prompt:
    return Prompt("b", "task", text + "\nA) yes\nB) no", options=("A", "B"), answer=0, question=text)


def found(question: str, trained: str) -> bool:
    return bool(contained([prompt(question)], [Example(trained, "A")]))


def test_a_question_is_found_in_another_format_and_punctuation() -> None:
    question = "What does the AMF do when a UE registers in a new tracking area?"
    assert found(question, "Question: what does the AMF do, when a UE registers in a new tracking area\nOptions: 1) x")
    assert found("What is V2X?", "What is V2X?")


def test_a_question_from_the_same_template_is_not_found() -> None:
    assert not found(
        "What does the AMF do when a UE registers in a new tracking area?",
        "What does the SMF do when a UE requests a new session?",
    )
    assert not found("What is V2X?", "What is V2X good for in a city with much traffic?")


def sweep(folder: Path, asked: list[str]) -> Sweep:
    """Trains on TeleQnA, and measures on the same questions in a file of another name and format."""
    rows = {
        f"question {at}": {
            "question": question,
            "option 1": "yes",
            "option 2": "no",
            "answer": "option 1: yes",
            "category": "Standards",
        }
        for at, question in enumerate(QUESTIONS)
    }
    (folder / "TeleQnA.txt").write_text(json.dumps(rows))
    with (folder / "bench.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["question", "first", "second", "right"])
        table.writerows([question, "yes", "no", "yes"] for question in asked)
    columns = {"prompt": "question", "choices": ["first", "second"], "answer": "right"}
    changes: dict[str, Any] = {
        "arms": {},
        "finetune": LEAST["finetune"] | {"data": [{"name": "teleqna", "path": str(folder / "TeleQnA.txt")}]},
        "evaluate": LEAST["evaluate"] | {"task": [{"name": "exam", "path": str(folder / "bench.csv"), **columns}]},
    }
    return Sweep.model_validate(LEAST | changes)


def test_questions_that_the_sweep_trains_on_are_left_out_and_counted(tmp_path: Path) -> None:
    """Issue: trained on TeleQnA and measured on another copy of it, 1,608 of 2,000 questions had been trained on."""
    fresh = ["Which new interface connects a satellite with the core network of a second operator?"]
    made = sweep(tmp_path, QUESTIONS + fresh)
    trained = len(load_examples("teleqna", tmp_path / "TeleQnA.txt").rows)
    assert 10 < trained < 20
    asked = [one for one in all_prompts(made) if one.benchmark == "exam"]
    assert len(asked) == len(QUESTIONS) + 1 - trained
    (line,) = [line for line in overlaps(made) if "exam" in line]
    assert line == f"evaluate.task.0 (exam): {trained} of 21 prompts are in the training data and left out"


def test_a_benchmark_of_training_questions_alone_is_refused(tmp_path: Path) -> None:
    sweep(tmp_path, [])
    trained = [one.prompt for one in load_examples("teleqna", tmp_path / "TeleQnA.txt").rows]
    only = [question for question in QUESTIONS if any(question in one for one in trained)]
    with pytest.raises(DataError, match=r"evaluate\.task\.0 \(exam\): all \d+ prompts are in the training data"):
        all_prompts(sweep(tmp_path, only))
