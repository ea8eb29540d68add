"""The page of a run that has everything: it is accessible, and on a phone its plots stand below each other."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from browser import needs_browser, opened, serious
from whole_run import write_whole_run

from safecomm.report.page import write_report

ROOT = Path(__file__).parents[2]
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
OPEN = "() => document.querySelectorAll('details').forEach(one => one.open = true)"
OVERLAPS = """() => {
  const texts = [".annotation-text", "text[class$=title]", ".xtick text", ".ytick text", ".legendtext"];
  const found = [];
  for (const plot of document.querySelectorAll(".plot")) {
    const boxes = [...plot.querySelectorAll(texts)].filter(one => one.textContent)
      .map(one => [one.textContent, one.getBoundingClientRect()]).filter(([, box]) => box.width > 0);
    boxes.forEach(([text, a], place) => boxes.slice(place + 1).forEach(([other, b]) => {
      const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const up = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (across > 1 && up > 3) found.push(`${plot.id}: ${text} / ${other}`);
    }));
    boxes.filter(([, box]) => box.left < -1 || box.right > innerWidth + 1)
      .forEach(([text]) => found.push(`${plot.id}: ${text} is cut`));
  }
  return found;
}"""
PANELS = """() => Object.fromEntries([...document.querySelectorAll(".plot")].map(plot => {
  const panels = Object.values(plot._fullLayout._plots);
  return [plot.id, panels.map(({xaxis, yaxis}) => [xaxis._offset, yaxis._offset, yaxis._length])];
}))"""
"""Plot -> left edge, upper edge and height of each of its panels."""


@pytest.fixture(scope="module")
def report(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(write_whole_run(run_folder, tmp_path_factory.mktemp("whole") / "storage"))


def test_the_run_has_every_section_of_the_page(report: Path) -> None:
    templates = (ROOT / "safecomm" / "report").rglob("*.html.j2")
    ids = {name for path in templates for name in re.findall(r'<section id="([\w-]+)"', path.read_text())}
    page = report.read_text(encoding="utf-8")
    assert len(ids) > 14 and [name for name in ids | {"tries", "turns"} if f'<section id="{name}"' not in page] == []
    assert "Worst case</h3>" in page and "This sweep differs from the study" in page


@pytest.fixture
def phone(report: Path) -> Iterator[Any]:
    with opened(report, viewport=PHONE) as page:
        page.evaluate(OPEN)
        yield page


@needs_browser
def test_on_a_phone_every_figure_has_one_column_and_nothing_overlaps(phone: Any) -> None:
    for name, panels in phone.evaluate(PANELS).items():
        assert len({left for left, _, _ in panels}) == 1, name
        ends = [(top, top + height) for _, top, height in sorted(panels, key=lambda panel: panel[1])]
        assert all(before[1] < after[0] for before, after in pairwise(ends)), name
    assert phone.evaluate(OVERLAPS) == []
    assert phone.evaluate("document.documentElement.scrollWidth <= innerWidth")
    titles = phone.locator("#plot-drift text[class^=y][class$=title]").count()
    assert len(phone.evaluate(PANELS)["plot-drift"]) == titles == 6, "each panel names its rate"
    assert len(phone.evaluate(PANELS)["plot-rho"]) == 6, "no room for plots that are not there"


@needs_browser
def test_nothing_overlaps_on_a_wide_screen(report: Path) -> None:
    with opened(report, viewport=WIDE) as page:
        page.evaluate(OPEN)
        assert any(len({left for left, _, _ in panels}) > 1 for panels in page.evaluate(PANELS).values())
        assert page.evaluate(OVERLAPS) == []


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_everything_is_accessible(report: Path, scheme: str, viewport: dict[str, int]) -> None:
    with opened(report, viewport=viewport, color_scheme=scheme) as page:
        page.evaluate(OPEN)
        assert serious(page) == []
