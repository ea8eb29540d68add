"""Where the recommended arm differs: paired tests by benchmark and category, corrected for their number."""

from pathlib import Path

import pytest
from benchmark import benchmark

from safecomm.judging.results import paired
from safecomm.report.arms import answers_of_row, arm_answers
from safecomm.report.page import render
from safecomm.report.part_differences import PartDifference, part_differences
from safecomm.report.run import headline, read_run
from safecomm.statistics.comparisons import paired_difference, sign_flip_p
from safecomm.statistics.metric_table import BY_NAME


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(benchmark("explorer").write_run(tmp_path_factory.mktemp("many"), 400))


@pytest.fixture(scope="module")
def found(many: Path) -> list[PartDifference]:
    run = read_run(many)
    return part_differences(run, headline(run), arm_answers(run, headline(run)))


def test_a_part_has_the_difference_of_its_own_prompts(many: Path, found: list[PartDifference]) -> None:
    run = read_run(many)
    rows = {row.arm: row for row in headline(run)}
    (chosen,) = [arm for arm, row in rows.items() if row.recommended]
    parts = [one for one in found if (one.metric, one.reference) == ("asr", "undefended")]
    (fraud,) = [one for one in parts if (one.benchmark, one.category) == ("harm", "fraud")]
    ours, theirs = (answers_of_row(run, rows[arm]) for arm in (chosen, "undefended"))
    asked = (one[(one["benchmark"] == "harm") & (one["category"] == "fraud")] for one in (ours, theirs))
    pairs = paired(*asked, BY_NAME["asr"])
    expected = paired_difference(pairs)
    assert (fraud.difference.value, fraud.difference.n) == (expected.value, expected.n)
    assert fraud.difference.p >= sign_flip_p(pairs) and len(parts) > 2
    assert next(one.category for one in parts if one.benchmark == "harm") == ""  # the benchmark before its categories


def test_the_page_counts_those_that_are_decided(many: Path, found: list[PartDifference]) -> None:
    page = render(read_run(many))
    decided = sum(one.is_decided for one in found)
    assert 0 < decided < len(found)
    assert f"{decided} of {len(found)} differences by benchmark and category are decided" in page


def test_without_answers_there_are_no_differences(tmp_path: Path) -> None:
    folder = Path(benchmark("explorer").write_run(tmp_path, 60))
    for path in folder.parent.glob("store/evaluation/*/rows.parquet"):
        path.unlink()
    run = read_run(folder)
    assert part_differences(run, headline(run), arm_answers(run, headline(run))) == []
