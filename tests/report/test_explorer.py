"""The explorer of answers, used as a person would in Chromium."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from browser import EXPLORER, needs_browser, opened, serious

from safecomm.judging.labels import Labelled
from safecomm.judging.verdicts import read_rows
from safecomm.report.explorer import packed
from safecomm.report.human_labels import with_labels
from safecomm.report.page import render, write_report
from safecomm.report.run import headline, read_run
from safecomm.report.samples import SampleAnswer, samples

pytestmark = needs_browser
CHANGE_AND_COUNT = """async ([name, value]) => {
  const table = document.querySelector("#answers-table"), field = document.querySelector(`[data-testid=${name}]`);
  const root = table.querySelector(".tabulator-table");
  let added = 0;
  const observer = new MutationObserver(found => found.forEach(one => added += one.addedNodes.length));
  observer.observe(table, { childList: true, subtree: true });
  if (field.type === "checkbox") field.checked = value; else field.value = value;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  await new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(drawn))));
  observer.disconnect();
  return root === table.querySelector(".tabulator-table") ? added : Infinity;
}"""
"""Changes a filter, and returns how many nodes the table got, or infinity if it was replaced."""
HOSTILE = '=1+1 </script><script>window.broken = 1</script> \x1b[31m \x00 \ud800 \u2028 "quoted", <b>bold</b>\r\nnext'


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run with 5 arms and 400 prompts."""
    return write_report(EXPLORER.write_run(tmp_path_factory.mktemp("few"), 400))


@pytest.fixture
def page(report: Path) -> Iterator[Any]:
    with opened(report) as one:
        yield one


def part(page: Any, name: str) -> Any:
    return page.locator(f"[data-testid={name}]")


def count(page: Any) -> int:
    """Returns how many prompts the page says that it shows."""
    return int(str(part(page, "count").text_content()).split()[0].replace(",", ""))


def verdicts(report: Path, arm: str) -> pd.DataFrame:
    """Returns an arm's rows of the report split, as the trial stored them."""
    trials = pd.read_parquet(report.parent / "trials.parquet").query("split == 'report' and arm == @arm")
    return read_rows(report.parent.parent / "store" / "evaluation" / trials["evaluation"].iloc[0])


def flips(report: Path, a: str, b: str) -> int:
    both = verdicts(report, a).merge(verdicts(report, b), on=["benchmark", "prompt_id"])
    return int(
        ((both["verdict_x"] != both["verdict_y"]) & ~both[["verdict_x", "verdict_y"]].eq("unscored").any(axis=1)).sum()
    )


def test_the_page_opens_at_its_top_unless_its_address_names_answers(report: Path) -> None:
    for link, is_below in (("", False), ("#samples?flipped=1", True)):
        with opened(report, link) as page:
            assert (page.evaluate("window.scrollY") > 0) == is_below


@pytest.mark.slow
def test_100_000_answers_take_no_more_drawing_than_2_000(report: Path, tmp_path: Path) -> None:
    """`benchmarks/explorer.py` measures the times."""
    drawn = []
    for one in (report, write_report(EXPLORER.write_run(tmp_path, 20_000))):
        with opened(one) as page:
            drawn.append([page.evaluate(CHANGE_AND_COUNT, [name, value]) for name, value in EXPLORER.CHANGES])
            assert 0 < part(page, "row").count() < 100, "only the rows in view are drawn"
    few, many = drawn
    assert all(often <= 2 * max(few) for often in many), (few, many)
    with opened(one) as page:
        assert count(page) == 20_000
        part(page, "flipped").check()
        assert count(page) == flips(one, "undefended", part(page, "arm-b").input_value())


def test_filters_count_what_the_trials_hold(page: Any, report: Path) -> None:
    a, b = verdicts(report, "safe_instruct"), verdicts(report, "original")
    part(page, "arm-a").select_option("safe_instruct")
    part(page, "arm-b").select_option("original")
    part(page, "flipped").check()
    assert count(page) == flips(report, "safe_instruct", "original")
    part(page, "flipped").uncheck()
    part(page, "verdict").select_option("unsafe")
    assert count(page) == int((a["verdict"] == "unsafe").sum())
    part(page, "verdict-b").select_option("safe")
    assert count(page) == int(((a["verdict"] == "unsafe").to_numpy() & (b["verdict"] == "safe").to_numpy()).sum())
    page.get_by_role("button", name="Clear filters").click()
    part(page, "benchmark").select_option("harm")
    part(page, "attack").select_option("prefill5")
    part(page, "category").select_option("fraud")
    assert count(page) == int(((a["benchmark"] == "harm+prefill5") & (a["category"] == "fraud")).sum())
    page.get_by_role("button", name="Clear filters").click()
    part(page, "search").fill("357: ")
    assert count(page) == 1
    part(page, "search").fill("no such words")
    assert count(page) == 0 and "No prompt passes" in page.locator("#answers-table").inner_text()


def test_harmful_texts_are_folded_until_a_person_opens_them(page: Any, report: Path) -> None:
    text = verdicts(report, "undefended")["text"].iloc[1]
    part(page, "row").nth(0).click()
    page.keyboard.press("j")
    assert "harmful, folded" in part(page, "row").nth(1).inner_text()
    assert text not in part(page, "explorer").inner_text()
    page.keyboard.press("Enter")
    assert page.get_by_text(text).first.is_visible() and page.evaluate("document.activeElement.id") == "sample-title"
    page.keyboard.press("k")
    assert page.evaluate("document.activeElement.dataset.testid") == "row"
    assert "harmful, folded" in part(page, "row").nth(0).inner_text()


def test_a_link_opens_the_same_filters_and_prompt(page: Any, report: Path) -> None:
    part(page, "arm-a").select_option("safe_lora")
    part(page, "verdict").select_option("wrong")
    part(page, "row").nth(3).click()
    shown, link = part(page, "count").text_content(), page.evaluate("location.hash")
    prompt = page.locator("#sample-title").inner_text()
    again = page.context.browser.new_page()
    again.goto(f"{report.as_uri()}{link}")
    again.wait_for_selector(EXPLORER.READY)
    assert part(again, "count").text_content() == shown
    assert again.locator("#sample-title").inner_text() == prompt
    assert again.locator("[aria-selected=true]").is_visible(), "the list is scrolled to the prompt"


def test_marks_are_kept_and_become_labels_that_the_product_reads(report: Path, tmp_path: Path) -> None:
    with opened(report) as page:
        part(page, "row").nth(0).click()
        page.keyboard.press("Enter")
        page.keyboard.press("u")
        page.keyboard.press("b")
        page.keyboard.press("s")
        page.keyboard.press("r")
        page.keyboard.type('=a "remark", s u')
        page.keyboard.press("Escape")
        page.keyboard.press("j")
        page.keyboard.press("?")
        part(page, "benchmark").select_option("quiz")
        part(page, "row").nth(0).click()
        page.keyboard.press("u")  # a task is not labelled
        page.reload()
        page.wait_for_selector(EXPLORER.READY)
        assert page.locator("#marked").inner_text().startswith("4 marked, 2 of them labels")
        for name, file in (("Export labels", "labels.csv"), ("Export all marks", "review.csv")):
            with page.expect_download() as download:
                page.get_by_role("button", name=name).click()
            download.value.save_as(tmp_path / file)
    found = Labelled.read(tmp_path / "labels.csv")
    row = verdicts(report, "undefended").iloc[0]
    assert list(found.drawn.values()) == [True, False] and found.rows["response"][0] == row["response"]
    labelled = with_labels(verdicts(report, "undefended"), "e1", found.drawn)
    assert labelled["label"].tolist()[:2] == ["unsafe", ""], "the label is that of the first answer"
    marks = pd.read_csv(tmp_path / "review.csv", dtype=str)
    assert marks["mark"].tolist() == ["unsafe", "safe", "unsure", "unsafe"]
    assert marks["remark"][1] == '\'=a "remark", s u'


def test_hostile_texts_stay_text_and_are_exported_unchanged(report: Path, tmp_path: Path) -> None:
    run = read_run(report.parent)
    found = samples(run, headline(run))
    first = found.prompts[0]
    bad = SampleAnswer(0, HOSTILE, HOSTILE, "unsafe", ("safe",), False)
    arms = [replace(arm, settings=HOSTILE, answers=arm.answers | {first.id: bad}) for arm in found.arms]
    prompts = [replace(first, text=HOSTILE, category=HOSTILE), *found.prompts[1:]]
    shown = tmp_path / "report.html"
    shown.write_text(render(run, packed(run, replace(found, prompts=prompts, arms=arms))), encoding="utf-8")
    with opened(shown) as page:
        part(page, "row").nth(0).click()
        page.keyboard.press("Enter")
        page.keyboard.press("u")
        assert "</script><script>" in page.locator(".response").first.inner_text()
        assert page.evaluate("window.broken === undefined") and page.locator("#sample b").count() == 0
        with page.expect_download() as download:
            part(page, "export-labels").click()
        download.value.save_as(tmp_path / "labels.csv")
    assert Labelled.read(tmp_path / "labels.csv").rows["response"][0] == HOSTILE.replace("\ud800", "\ufffd")


def test_answers_beside_the_page_open_from_disk(report: Path, tmp_path: Path) -> None:
    shutil.copytree(report.parents[1], tmp_path / "storage")
    beside = write_report(tmp_path / "storage" / report.parent.name, most_inside=10)
    with opened(beside) as page:
        assert count(page) == 400
    (beside.parent / "report.answers.js").rename(tmp_path / "elsewhere.js")
    with pytest.raises(AssertionError, match="ERR_FILE_NOT_FOUND"), opened(beside) as page:
        assert "Keep it beside report.html" in part(page, "count").inner_text()


@pytest.mark.parametrize("settings", [{}, {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"}], ids=str)
def test_it_fits_the_screen_and_is_accessible(report: Path, settings: dict[str, Any]) -> None:
    with opened(report, **settings) as page:
        part(page, "row").nth(0).click()
        page.keyboard.press("Enter")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert serious(page) == []


def test_printing_lists_the_prompts_that_pass_the_filters(page: Any) -> None:
    part(page, "benchmark").select_option("quiz")
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    lines = page.locator("#printed-answers tbody tr")
    assert lines.count() == 100 and lines.first.is_visible() and not page.locator("#answers-table").is_visible()
