"""Makes the picture of a report that the README shows: `python scripts/report_picture.py runs/lab`.

It opens the run's report.html in Chromium and keeps the top of the page, which has no answers of a model.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "report.png"
SIZE = "1200,1424"
"""Width and height in pixels: down to the end of the table of results."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main(run: str) -> None:
    """Writes the picture."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit("report_picture: needs chromium; install it, e.g. with `apt-get install chromium`")
    page = (Path(run) / "report.html").resolve()
    if not page.is_file():
        sys.exit(f"report_picture: {page} does not exist; give the folder of a finished run")
    with tempfile.TemporaryDirectory() as profile:
        picture = Path(profile) / PICTURE.name
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
        command = [browser, *options, f"--window-size={SIZE}", f"--screenshot={picture}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        PICTURE.parent.mkdir(exist_ok=True)
        shutil.copy(picture, PICTURE)
    print(f"{PICTURE}: {PICTURE.stat().st_size:,} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/report_picture.py RUN")
    main(sys.argv[1])
