"""PubMedQA in the Hub's format and in its authors' format."""

import json
from pathlib import Path
from typing import Any

import pytest

from safecomm.data.catalog.registry import DATASETS, load_examples, load_prompts
from safecomm.data.table import Table

HUB = {"pubid": 1, "question": "Does it help?", "context": {"contexts": ["We gave it.", "They got well."]}}
OWN = {"QUESTION": "Does it help?", "CONTEXTS": ["We gave it.", "They got well."]}


@pytest.mark.parametrize("row", [HUB, OWN])
def test_both_forms_give_the_same_question(row: dict[str, Any]) -> None:
    rows = [row | {"final_decision": answer} for answer in ("maybe", "unknown")]
    loaded = DATASETS["pubmedqa"].benchmark(Table(rows, "here"), "pubmedqa")
    (prompt,) = loaded.rows
    assert prompt.text.startswith("We gave it.\n\nThey got well.\n\nDoes it help?\n\nA. yes\nB. no\nC. maybe")
    assert (prompt.kind, prompt.options, prompt.answer) == ("task", ("A", "B", "C"), 2)
    assert loaded.skipped == {"no right answer": 1}


def test_authors_file_serves_for_training_and_evaluation(tmp_path: Path) -> None:
    rows = {str(number): OWN | {"QUESTION": f"Does {number} help?", "final_decision": "no"} for number in range(5)}
    (tmp_path / "ori_pqaa.json").write_text(json.dumps(rows))
    examples = load_examples("pubmedqa-artificial", tmp_path).rows
    assert [example.response for example in examples] == ["B. no"] * 5
    (tmp_path / "ori_pqal.json").write_text(json.dumps(rows))
    assert len(load_prompts("pubmedqa", tmp_path).rows) == 5
