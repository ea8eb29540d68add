"""Writes the pages of docs/ that are generated from the code: `make docs` runs this before it builds the site.

A test fails if a page is not what its generator gives.
"""

from collections.abc import Callable
from pathlib import Path

import cli_page
import defense_page
import sweep_page

DOCS = Path(__file__).parents[1] / "docs"
PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli_page.page,
    "defenses.md": defense_page.page,
    "sweep-file.md": sweep_page.page,
}
"""File in docs/ -> what it must contain."""


def main() -> None:
    """Writes every page."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
