"""A hook of mkdocs: the home page of the site is the README, with its links made relative to docs/."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

README = Path(__file__).parents[1] / "README.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the home page."""
    files.append(File.generated(config, "index.md", content=home_page(README.read_text(encoding="utf-8"))))
    return files


def home_page(readme: str) -> str:
    """Returns the README for a place in docs/; links to files that are not in docs/ become their names."""
    inside = re.sub(r"\]\(docs/", "](", readme)
    return re.sub(r"(?<!!)\[([^\]]+)\]\((?!https?:)([\w.-]+)\)", _kept_if_a_page, inside)


def _kept_if_a_page(link: re.Match[str]) -> str:
    is_page = (README.parent / "docs" / link[2]).exists()
    return link[0] if is_page else f"`{link[2]}`"
