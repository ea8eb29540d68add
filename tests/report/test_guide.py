"""The guide says what the recommended adapter is good for, names what was not measured, and is written with the run."""

import json
import shutil
from pathlib import Path

import pytest

from safecomm.report.guide import guide, write_guide
from safecomm.report.page import render
from safecomm.report.run import headline, rate_in_words, read_run


@pytest.fixture
def run(run_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run_folder, tmp_path / "small"))


def sentences(run: Path) -> dict[str, str]:
    return {part.question: " ".join(part.sentences) for part in guide(read_run(run))}


def test_every_rate_in_it_is_one_of_the_report_split_with_its_interval(run: Path) -> None:
    rows = {row.arm: row for row in headline(read_run(run))}
    (chosen,) = [row for row in rows.values() if row.recommended]
    found = sentences(run)
    assert chosen.arm in found["Which adapter?"]
    assert rate_in_words(chosen.rates["asr"]) in found["Which adapter?"]
    for rate in (
        chosen.rates["accuracy"],
        rows["undefended"].rates["accuracy"],
        rows["original"].rates["over_refusal"],
    ):
        assert rate_in_words(rate) in found["What does it cost?"]


def test_it_says_whether_the_target_is_kept_with_the_whole_interval(run: Path) -> None:
    for target, words in ((0.9, "keeps the target"), (0.11, "does not surely keep the target"), (0.0, "misses")):
        sweep = json.loads((run / "sweep.json").read_text())
        sweep["search"]["target_asr"] = target
        (run / "sweep.json").write_text(json.dumps(sweep))
        (chosen,) = [row for row in headline(read_run(run)) if row.recommended]
        if target == 0.11:
            assert chosen.rates["asr"].value <= target < chosen.rates["asr"].high
        assert words in sentences(run)["Which adapter?"]


def test_what_was_not_measured_is_named(run: Path) -> None:
    found = sentences(run)
    assert "Not measured: the attacks prefill, template, suffix, best_of_n" in found["What does it not cover?"]
    assert "Not measured: further training on harmful examples." in found["What does it not cover?"]
    assert "Not measured: the errors of the judge refusal" in found["What does it not cover?"]
    assert "Not measured: how much another fine-tune" in found["When to measure again?"]
    sweep = json.loads((run / "sweep.json").read_text())
    attacked = {"name": "lab-harm", "attack": {"prefill": {"tokens": 3}}}
    sweep["evaluate"]["red_team"] = [{"name": "lab-harm"}, attacked]
    (run / "sweep.json").write_text(json.dumps(sweep))
    assert "the attacks template, suffix" in sentences(run)["What does it not cover?"]


def test_it_is_a_file_and_the_end_of_the_page(run: Path) -> None:
    text = write_guide(read_run(run)).read_text()
    page = render(read_run(run))
    for part in guide(read_run(run)):
        assert f"## {part.question}" in text
        assert f"<h3>{part.question}</h3>" in page
    assert page.index('id="guide"') > page.index('id="samples"')
