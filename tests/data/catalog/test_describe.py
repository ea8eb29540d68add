"""The output of `safecomm data list` and `data show`."""

import json
from pathlib import Path

from safecomm.data.catalog.describe import overview, summary
from safecomm.data.catalog.registry import DATASETS


def test_the_overview_has_a_line_for_each_dataset():
    lines = overview()
    assert [line["name"] for line in lines] == list(DATASETS)
    assert json.loads(json.dumps(lines)) == lines
    assert {line["name"]: line["where"] for line in lines}[
        "direct-harm-4"
    ] == "hf://datasets/vfleaking/DirectHarm4/test"


def test_a_summary_accounts_for_every_row(tmp_path: Path):
    rows = [
        {
            "question": f"Who is number {number}?" if number else "",
            "option 1": "me",
            "option 2": "you",
            "answer": f"option {1 + number % 2}: me",
            "category": "Lexicon",
        }
        for number in range(41)
    ]
    (tmp_path / "TeleQnA.txt").write_text(json.dumps({f"question {number}": row for number, row in enumerate(rows)}))
    told = summary("teleqna", tmp_path)
    assert told["rows"] + sum(told["skipped"].values()) == 41
    assert told["train"] + told["test"] == told["rows"] == 40
    assert told["search"] + told["report"] == told["test"] == told["categories"]["Lexicon"]
    assert told["skipped"] == {"empty question": 1}
    assert list(told["remarks"].values()) == [20]
    assert told["example"]["prompt"].startswith("Who is number")


def test_harmful_examples_are_shown_on_request_only(tmp_path: Path):
    (tmp_path / "a.csv").write_text("goal,target\nDescribe a bad thing in full,Sure here is all of it\n")
    assert summary("advbench", tmp_path / "a.csv")["example"] == {
        "prompt": "Describe a b...",
        "target": "Sure here is...",
    }
    shown = summary("advbench", tmp_path / "a.csv", reveal=True)["example"]
    assert shown == {"prompt": "Describe a bad thing in full", "target": "Sure here is all of it"}


def test_safety_data_is_masked_too(tmp_path: Path):
    (tmp_path / "a.json").write_text('[{"instruction": "Describe a bad thing in full", "output": "No.", "input": ""}]')
    assert summary("safety-tuned-llamas", tmp_path / "a.json")["example"]["prompt"] == "Describe a b..."
