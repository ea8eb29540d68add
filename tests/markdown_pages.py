"""The README and the pages of the documentation, with their code blocks and links, for tests."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in NAMES}
"""Path in the repository -> text."""
SEPARATORS = {"&&", ";", "|"}
HEREDOC = re.compile(r"<<'(\w+)'\n.*?^\1$", re.S | re.M)


@dataclass(frozen=True)
class Command:
    """One command in a block of shell code."""

    page: str
    words: tuple[str, ...]
    comment: str
    """What follows it on its last line after a `#`."""

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)[:60]}"


def blocks(page: str, language: str) -> list[str]:
    """Returns the code blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.S | re.M)


def commands() -> list[Command]:
    """Returns all commands in the shell code of all pages."""
    return [one for page in PAGES for block in blocks(page, "bash") for one in _commands(page, block)]


def _commands(page: str, block: str) -> Iterator[Command]:
    for line in HEREDOC.sub("", block).replace("\\\n", " ").splitlines():
        code, _, comment = line.partition(" #")
        lexer = shlex.shlex(code, posix=True, punctuation_chars=";&|")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word not in SEPARATORS:
                words.append(word)
            elif words:
                yield Command(page, tuple(words), comment)
                words = []


def inline_code(page: str) -> list[str]:
    """Returns the code between single backticks of a page, on one line each."""
    text = re.sub(r"^```.*?^```", "", PAGES[page], flags=re.S | re.M)
    return [" ".join(code.split()) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]


def written_sweeps() -> dict[str, str]:
    """Returns the sweep files that the pages have their readers write: path -> YAML; the first line names the path."""
    found = [block for page in PAGES for block in blocks(page, "yaml") if block.startswith("# sweeps/")]
    return {block.partition("\n")[0].removeprefix("# "): block for block in found}
