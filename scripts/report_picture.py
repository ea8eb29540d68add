"""Makes the picture of a report that the README shows: `python scripts/report_picture.py runs/lab`.

It opens the run's report.html in Chromium and keeps the top of the page, which has no answers of a model.
"""

import shutil
import sys
from pathlib import Path

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "report.png"
WIDTH, HEIGHT = 1200, 1424
"""In pixels: down to the end of the table of results."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DRAWN = "#plot-trade-off .main-svg"
"""A part of the page that its scripts draw."""


def main(run: str) -> None:
    """Writes the picture."""
    from playwright.sync_api import sync_playwright

    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit("report_picture: needs chromium; install it, e.g. with `apt-get install chromium`")
    page = (Path(run) / "report.html").resolve()
    if not page.is_file():
        sys.exit(f"report_picture: {page} does not exist; give the folder of a finished run")
    PICTURE.parent.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        view = opened.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        view.goto(page.as_uri())
        view.wait_for_selector(DRAWN, timeout=120_000)
        view.screenshot(path=PICTURE)
        opened.close()
    print(f"{PICTURE}: {PICTURE.stat().st_size:,} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/report_picture.py RUN")
    main(sys.argv[1])
