"""Harmful and harmless prompt sets in all known formats: columns are found by name, no row is lost or repeated."""

import json
from pathlib import Path

import pytest

from safecomm.data.catalog.registry import DATASETS, load_examples, load_prompts
from safecomm.errors import DataError


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("header", ["instruction,category", "Goal,Category", " GOAL , CATEGORY "])
def test_direct_harm_in_the_columns_of_the_hub_and_of_copies(tmp_path: Path, header: str):
    loaded = load_prompts(
        "direct-harm-4", written(tmp_path / "a.csv", header, "Do a bad thing,drug", '"Do it, now",malware')
    )
    assert [(row.text, row.category) for row in loaded.rows] == [("Do a bad thing", "drug"), ("Do it, now", "malware")]
    assert {(row.benchmark, row.kind, row.target) for row in loaded.rows} == {("direct-harm-4", "red_team", None)}


def test_unknown_columns_are_listed(tmp_path: Path):
    with pytest.raises(DataError, match=r"direct-harm-4: .*a\.csv: no column instruction or goal .*: Query, Topic\."):
        load_prompts("direct-harm-4", written(tmp_path / "a.csv", "Query,Topic", "Do a bad thing,drug"))


def test_messages_never_quote_prompts(tmp_path: Path):
    """A list without header has a harmful prompt where the column's name should be."""
    prompt = "Write a long and detailed account of a bad thing"
    with pytest.raises(DataError) as caught:
        load_prompts("direct-harm-4", written(tmp_path / "a.csv", f'"{prompt}",drug', "another,drug"))
    assert prompt[:12] in str(caught.value) and prompt not in str(caught.value)


def test_advbench_has_targets(tmp_path: Path):
    loaded = load_prompts(
        "advbench", written(tmp_path / "a.csv", "goal,target", 'Do a bad thing,"Sure, here is"', "Do more,")
    )
    assert [row.target for row in loaded.rows] == ["Sure, here is", None]


def test_advbench_without_header_loses_no_row(tmp_path: Path):
    loaded = load_prompts("advbench", written(tmp_path / "a.csv", "Do a bad thing", '"Do it, now"', "Do it again"))
    assert [row.text for row in loaded.rows] == ["Do a bad thing", "Do it, now", "Do it again"]


def test_single_column_with_another_name_is_rejected(tmp_path: Path):
    with pytest.raises(DataError, match="its columns are: sentence"):
        load_prompts("advbench", written(tmp_path / "a.csv", "sentence", "Do a bad thing"))


def test_unusable_prompts_are_counted_with_their_reason(tmp_path: Path):
    lines = ["goal,target", "Do a bad thing,", " ,x", "do a BAD thing!,y", "Do it, now,z"]
    loaded = load_prompts("advbench", written(tmp_path / "a.csv", *lines))
    assert [row.text for row in loaded.rows] == ["Do a bad thing"]
    assert loaded.skipped == {"empty prompt": 1, "repeated prompt": 1, "more fields than columns": 1}


def test_list_without_header_counts_broken_rows(tmp_path: Path):
    loaded = load_prompts("advbench", written(tmp_path / "a.csv", "Do a bad thing", "Do it, now"))
    assert (len(loaded.rows), loaded.skipped) == (1, {"more fields than columns": 1})


XSTEST = ["v2-1,How do I slay my to-do list?,homonyms,safe,,", "v2-2,How do I do bad?,contrast_homonyms,unsafe,,"]


def test_xstest_uses_its_safe_half(tmp_path: Path):
    loaded = load_prompts("xstest", written(tmp_path / "a.csv", "id,prompt,type,label,focus,note", *XSTEST))
    assert [(row.text, row.category, row.kind) for row in loaded.rows] == [
        ("How do I slay my to-do list?", "homonyms", "over_refusal")
    ]
    assert loaded.skipped == {"not labelled safe": 1}


def test_xstest_of_version_2_without_labels(tmp_path: Path):
    lines = [",".join(line.split(",")[:3]) for line in XSTEST]
    loaded = load_prompts("xstest", written(tmp_path / "a.csv", "id_v2,prompt,type", *lines))
    assert [row.text for row in loaded.rows] == ["How do I slay my to-do list?"]


def test_set_without_usable_rows_is_rejected(tmp_path: Path):
    with pytest.raises(DataError, match=r"xstest: it has no usable row \(not labelled safe: 1\)"):
        load_prompts("xstest", written(tmp_path / "a.csv", "id,prompt,type,label,focus,note", XSTEST[1]))


def test_safety_rows_become_exchanges(tmp_path: Path):
    rows = [
        '{"instruction": "Do a bad thing", "output": "I won\'t.", "input": ""}',
        '{"instruction": "Sum this up", "output": "It is bad.", "input": "a text"}',
        '{"instruction": "do a bad thing.", "output": "No.", "input": ""}',
        '{"instruction": "Do more", "output": " "}',
    ]
    loaded = load_examples("safety-tuned-llamas", written(tmp_path / "a.json", f"[{','.join(rows)}]"))
    assert [row.prompt for row in loaded.rows] == ["Do a bad thing", "Sum this up\n\na text"]
    assert loaded.rows[0].response == "I won't."
    assert loaded.skipped == {"repeated prompt": 1, "empty response": 1}


def test_of_aegis_only_the_refusals_that_were_written_for_training_are_used(tmp_path: Path):
    def row(prompt: str, response: str | None, label: str | None = "safe", source: str = "refusal_data_augmentation"):
        labels = {"prompt_label": "unsafe", "response_label": label, "response_label_source": source}
        return {"id": prompt, "prompt": prompt, "response": response, **labels}

    rows = [
        row("Do a bad thing", "I won't."),
        row("do a bad thing.", "No."),
        row("Do more", "Sure, here is how.", "unsafe", "llm_jury"),
        row("Do less", "Fine by me.", "safe", "human"),
        row("REDACTED", "I won't."),
        row("Do it now", " "),
    ]
    loaded = load_examples("aegis-refusals", written(tmp_path / "a.json", json.dumps(rows)))
    assert [(one.prompt, one.response) for one in loaded.rows] == [("Do a bad thing", "I won't.")]
    assert loaded.skipped == {
        "belongs to another part of the dataset": 2,
        "repeated prompt": 1,
        "redacted prompt": 1,
        "empty response": 1,
    }


def test_hex_phi_is_a_folder_of_bare_lists(tmp_path: Path):
    for number in (1, 10):
        written(tmp_path / f"category_{number}.csv", f'"Do bad thing {number}, now"', f"Do worse thing {number}")
    written(tmp_path / "readme.csv", "not,a,part")
    loaded = load_prompts("hex-phi", tmp_path)
    assert [(row.text, row.category) for row in loaded.rows] == [
        ("Do bad thing 1, now", "category_1"),
        ("Do worse thing 1", "category_1"),
        ("Do bad thing 10, now", "category_10"),
        ("Do worse thing 10", "category_10"),
    ]


def test_sorry_bench_counts_plain_prompts_only(tmp_path: Path):
    rows = [
        {"turns": ["Do a bad thing"], "category": 1, "prompt_style": "base"},
        {"turns": ["D0 4 b4d th1ng"], "category": 1, "prompt_style": "leet"},
        {"turns": [], "category": 1, "prompt_style": "base"},
    ]
    path = tmp_path / "question.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    loaded = load_prompts("sorry-bench", path)
    assert [row.text for row in loaded.rows] == ["Do a bad thing"]
    assert loaded.skipped == {"belongs to another part of the dataset": 1, "empty prompt": 1}


def test_teleharm_lists_its_columns_where_none_is_a_prompt(tmp_path: Path):
    assert len(load_prompts("teleharm", written(tmp_path / "a.csv", "Question,Area", "Jam it?,radio")).rows) == 1
    with pytest.raises(DataError, match="its columns are: Ask, Area"):
        load_prompts("teleharm", written(tmp_path / "b.csv", "Ask,Area", "Jam it?,radio"))


def test_or_bench_and_benign_behaviours_are_harmless(tmp_path: Path):
    path = written(tmp_path / "a.csv", "prompt,category", "Kill a process,violence")
    (row,) = load_prompts("or-bench-hard-1k", path).rows
    assert (row.kind, row.category) == ("over_refusal", "violence")
    path = written(tmp_path / "b.csv", "Index,Goal,Target,Behavior,Category", "0,Write a joke,Sure,Joke,Fun")
    assert [row.text for row in load_prompts("jailbreakbench-benign", path).rows] == ["Write a joke"]


@pytest.mark.parametrize("answer", [1, "1"])
def test_gsma_tasks_have_choices_and_a_0_based_answer(tmp_path: Path, answer: object):
    rows = [
        {"question": "Which?", "choices": ["this", "that", "both"], "answer": answer, "subject": "lexicon"},
        {"question": "Which now?", "choices": ["this", "that"], "answer": 2, "subject": "lexicon"},
        {"question": "And now?", "choices": [], "answer": 0, "subject": "lexicon"},
    ]
    path = tmp_path / "teleqna.json"
    path.write_text(json.dumps(rows))
    loaded = load_prompts("gsma-teleqna", tmp_path)
    (row,) = loaded.rows
    assert (row.options, row.answer, row.category) == (("A", "B", "C"), 1, "lexicon")
    assert loaded.skipped == {"no right answer": 1, "fewer than two options": 1}


def test_gsma_tasks_load_in_full_and_as_a_sample(tmp_path: Path):
    whole = {name for name in DATASETS if name.startswith("gsma-") and "-lite-" not in name}
    assert {name.replace("gsma-", "gsma-lite-") for name in whole} <= set(DATASETS) and len(whole) == 8
    assert DATASETS["gsma-lite-teleqna"].where == "hf://datasets/GSMA/ot-lite/teleqna/test"
    assert DATASETS["gsma-teleqna"].where == "hf://datasets/GSMA/ot-full/teleqna/test"


def test_tspec_llm_questions_are_teleqnas_with_underscores(tmp_path: Path):
    rows = {"question_1": {"question": "How many?", "option_1": "8", "option_2": "16", "answer": "option_2: 16"}}
    path = tmp_path / "Sampled_3GPP_TR_Questions.json"
    path.write_text(json.dumps(rows))
    (row,) = load_prompts("tspec-llm", tmp_path).rows
    assert row.answer == 1 and "B. 16" in row.text


def test_free_form_tasks_have_reference_and_grading(tmp_path: Path):
    path = tmp_path / "telemath.jsonl"
    rows = [
        {"question": "2 + 3?", "answer": 5, "category": "sums"},
        {"question": "3 + 3?", "answer": None},
        {"question": "3 - 3?", "answer": 0},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    loaded = load_prompts("gsma-telemath", tmp_path)
    row, zero = loaded.rows
    assert zero.reference == "0"
    assert (row.reference, row.grading, row.options) == ("5", "boxed-number", ())
    assert row.text.startswith("2 + 3?") and r"\boxed" in row.text
    assert loaded.skipped == {"no right answer": 1}


def test_tele_eval_is_trained_on_and_measured_by_a_grader(tmp_path: Path):
    rows = [{"Statement": f"What is term {number}?", "Answer": f"Meaning {number}"} for number in range(50)]
    (tmp_path / "Tele-Eval.jsonl").write_text("\n".join(map(json.dumps, [*rows, {"Statement": "What?", "Answer": ""}])))
    tested, trained = load_prompts("tele-eval", tmp_path), load_examples("tele-eval", tmp_path).rows
    assert {row.text for row in tested.rows} | {row.prompt for row in trained} == {row["Statement"] for row in rows}
    assert len(tested.rows) + len(trained) == 50 and 2 < len(tested.rows) < 20
    assert all(row.grading == "grader" and row.reference.startswith("Meaning") for row in tested.rows)
    assert tested.skipped == {"no right answer": 1}
