"""The loaders on the authors' published files, if these are next to the checkout."""

from collections import Counter
from pathlib import Path

import pytest

from safecomm.data.catalog.describe import summary
from safecomm.data.catalog.registry import DATASETS, load_examples, load_prompts
from safecomm.data.splits import normalised

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"


def published(name: str) -> Path:
    """Returns a published file or folder, or skips the test."""
    if not (DATA / name).exists():
        pytest.skip(f"the published {name} does not lie in ../shared/data")
    return DATA / name


def test_teleqna_is_read_completely():
    told = summary("teleqna", published("TeleQnA"))
    assert told["rows"] + sum(told["skipped"].values()) == 10_000
    assert told["skipped"] == {"the right option is given twice": 3, "repeated question with the same options": 3}
    assert list(told["remarks"].values()) == [5]
    assert 0.78 < told["train"] / told["rows"] < 0.82
    assert set(told["categories"]) == {
        "Research publications",
        "Standards specifications",
        "Research overview",
        "Standards overview",
        "Lexicon",
    }


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("teleqna", "TeleQnA"),
        ("safety-tuned-llamas", "safety-tuned-llamas"),
        ("direct-harm-4", "DirectHarm4"),
        ("advbench", "AdvBench"),
        ("xstest", "XSTest"),
    ],
)
def test_a_plan_counts_what_the_files_hold(name: str, folder: str):
    counts, told = DATASETS[name].counts, summary(name, published(folder))
    assert counts is not None and (counts.prompts, counts.examples) == (told["test"], told["train"])
    if counts.examples:
        rows = load_examples(name, published(folder)).rows
        assert counts.tokens == pytest.approx(
            sum(len(row.prompt + row.response) for row in rows) / 4 / len(rows), rel=0.02
        )


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("advbench", "AdvBench"),
        ("jailbreakbench", "JailbreakBench"),
        ("direct-harm-4", "DirectHarm4"),
        ("harmbench", "HarmBench"),
        ("xstest-unsafe", "XSTest"),
    ],
)
def test_a_sweep_knows_which_benchmarks_have_targets(name: str, folder: str):
    targets = [row.target for row in load_prompts(name, published(folder)).rows]
    assert targets and DATASETS[name].lacks_targets == (not any(targets))


def test_no_question_of_teleqna_is_on_both_sides():
    file = published("TeleQnA/TeleQnA.txt")
    tested = Counter(normalised(row.text.split("\n\nA. ")[0]) for row in load_prompts("teleqna", file).rows)
    trained = Counter(normalised(row.prompt.split("\n\nA. ")[0]) for row in load_examples("teleqna", file).rows)
    assert not tested.keys() & trained.keys()
    assert sum((tested + trained).values()) - len(tested + trained) > 40, (
        "repeated questions are there to be kept together"
    )


def test_teleqna_answers_are_among_the_options():
    for row in load_prompts("teleqna", published("TeleQnA")).rows:
        assert row.answer is not None and 2 <= len(row.options) <= 5
        assert f"\n{row.options[row.answer]}. " in row.text


def test_direct_harm():
    loaded = load_prompts("direct-harm-4", published("DirectHarm4"))
    assert Counter(row.category for row in loaded.rows) == dict.fromkeys(
        ["malware", "drug", "phishing", "disinfo"], 100
    )
    assert not loaded.skipped


def test_advbench_with_and_without_header_is_the_same():
    whole, bare = (
        load_prompts("advbench", published("AdvBench")),
        load_prompts("advbench", published("AdvBench/noheader")),
    )
    assert len(whole.rows) == len(bare.rows) == 520
    assert [row.text for row in whole.rows] == [row.text for row in bare.rows]
    assert all(row.target for row in whole.rows)
    assert not whole.skipped and not bare.skipped


def test_xstest_has_250_safe_prompts():
    loaded = load_prompts("xstest", published("XSTest"))
    assert list(Counter(row.category for row in loaded.rows).values()) == [25] * 10
    assert loaded.skipped == {"not labelled safe": 200}


def test_safety_tuned_llamas():
    loaded = load_examples("safety-tuned-llamas", published("safety-tuned-llamas"))
    assert (len(loaded.rows), loaded.skipped) == (2479, {"repeated prompt": 4})


@pytest.mark.parametrize("name", ["teleqna", "advbench"])
def test_the_search_and_report_halves_are_about_equal(name: str):
    told = summary(name, published({"teleqna": "TeleQnA", "advbench": "AdvBench"}[name]))
    assert abs(told["search"] - told["report"]) < 0.1 * told["test"]


def test_oran_bench_is_read_from_both_files():
    loaded = load_prompts("oran-bench-13k", published("ORAN-Bench-13K"))
    assert len(loaded.rows) + sum(loaded.skipped.values()) == 1139 + 9570
    assert loaded.skipped["fewer than two options"] >= 32
    assert {row.category for row in loaded.rows} == {"fin_E", "fin_M"}
    first = loaded.rows[0]
    assert first.answer == 2 and "\nC. O-RAN.WG1\n" in first.text  # its "3", and no "3. " before the option


@pytest.mark.parametrize(
    ("name", "rows"), [("harmbench", 200), ("harmbench-contextual", 100), ("harmbench-copyright", 100)]
)
def test_harmbench_has_three_parts(name: str, rows: int):
    loaded = load_prompts(name, published("HarmBench"))
    assert len(loaded.rows) == rows and sum(loaded.skipped.values()) == 400 - rows
    assert all(("\n\n---\n\n" in row.text) == (name == "harmbench-contextual") for row in loaded.rows)


def test_harmbench_parts_are_complete():
    parts = [
        load_prompts("harmbench", published("HarmBench") / f"harmbench_behaviors_text_{part}.csv")
        for part in ("val", "test", "all")
    ]
    texts = [{row.text for row in part.rows} for part in parts]
    assert texts[0] | texts[1] == texts[2] and not texts[0] & texts[1]


def test_jailbreakbench_uses_its_goals():
    loaded = load_prompts("jailbreakbench", published("JailbreakBench"))
    assert len(loaded.rows) == 100 and len({row.category for row in loaded.rows}) == 10
    assert all(row.target for row in loaded.rows)


def test_xstest_halves_are_complete():
    safe, unsafe = (load_prompts(name, published("XSTest")) for name in ("xstest", "xstest-unsafe"))
    assert (len(safe.rows), len(unsafe.rows)) == (250, 200)
    assert {row.kind for row in unsafe.rows} == {"red_team"}
