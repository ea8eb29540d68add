"""Opens reports in Chromium, driven by Playwright."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from benchmark import benchmark

EXPLORER = benchmark("explorer")
CHROMIUM = EXPLORER.chromium()
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or importlib.util.find_spec("playwright") is None,
    reason="needs Chromium and Playwright (the extra dev) to open the page",
)


def serious(page: Any) -> list[str]:
    """Returns what axe-core finds seriously wrong with the page that is shown, with the elements; skips without it."""
    pytest.importorskip("axe_playwright_python", reason="needs axe-playwright-python (the extra dev)")
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    bad = [one for one in found if one["impact"] in ("serious", "critical")]
    return [f"{one['id']}: {node['html']}" for one in bad for node in one["nodes"]]


@contextmanager
def opened(report: Path, link: str = "", **settings: Any) -> Iterator[Any]:
    """Yields Playwright's page of a report that is ready; fails if the browser reported an error.

    Args:
        report: the file.
        link: what follows it in the address.
        **settings: of the page, e.g. `viewport`.
    """
    from playwright.sync_api import sync_playwright

    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(**settings)
        page.on(
            "console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.set_default_timeout(120_000)
        page.goto(f"{report.as_uri()}{link}")
        page.wait_for_selector(EXPLORER.READY)
        yield page
        browser.close()
    assert not errors, errors
