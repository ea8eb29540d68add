"""The generated pages are current, every link leads somewhere, and the site builds and needs no network."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_pages import NAMES, PAGES, ROOT, blocks, inline_code, written_sweeps

from generated_pages import PAGES as GENERATED

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
GAP = "…"
"""Stands for names and numbers in the messages of the troubleshooting page."""


@pytest.mark.parametrize("name", GENERATED)
def test_generated_pages_are_current(name: str) -> None:
    assert PAGES[f"docs/{name}"] == GENERATED[name](), "run `make docs`"


def prose(page: str) -> str:
    """Returns a page without its code."""
    return re.sub(r"^```.*?^```|`[^`\n]*`", "", PAGES[page], flags=re.S | re.M)


def anchors(page: str) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", PAGES[page], flags=re.S | re.M), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", NAMES)
def test_links_lead_to_files_and_headings_that_exist(page: str) -> None:
    for link in LINK.findall(prose(page)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(str(target.resolve().relative_to(ROOT))), link


@pytest.mark.parametrize("page", NAMES)
def test_mentioned_paths_exist(page: str) -> None:
    pattern = r"(?<![\w/.-])((?:safecomm|sweeps|benchmarks|scripts|tests|docs|locks)/[\w./-]*)"
    paths = {path for code in inline_code(page) for path in re.findall(pattern, code)} - set(written_sweeps())
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_all_bundled_sweeps_are_listed() -> None:
    listed = set(re.findall(r"sweeps/[\w.-]+\.yaml", PAGES["docs/sweeps.md"].partition("## The bundled sweeps")[2]))
    assert listed == {f"sweeps/{path.name}" for path in (ROOT / "sweeps").glob("*.yaml")}


def test_the_picture_is_small() -> None:
    picture = ROOT / "docs" / "images" / "report.png"
    assert picture.read_bytes()[:4] == b"\x89PNG" and picture.stat().st_size < 300_000


def texts(tree: ast.AST) -> Iterator[str]:
    """Yields the texts in Python code, with a gap for every value in them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else GAP for part in node.values)


def test_messages_of_the_troubleshooting_page_are_those_of_the_code() -> None:
    files = [*(ROOT / "safecomm").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]
    code = "\n".join(text for path in files for text in texts(ast.parse(path.read_text(encoding="utf-8"))))
    messages = [line for block in blocks("docs/troubleshooting.md", "text") for line in block.splitlines()]
    assert len(messages) > 30
    parts = [part.strip(" ,.;:()") for message in messages for part in message.split(GAP)]
    assert [part for part in parts if part not in code] == []


def test_the_example_that_reads_a_sweep_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    example = blocks("docs/python.md", "python")[0]
    found: dict[str, object] = {}
    exec(example, found)
    assert found["sweep"].search.trials == 8  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. A page without an entry in the navigation, or a link that leads nowhere, fails the build."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_site_has_every_page(site: Path) -> None:
    expected = {Path(name).with_suffix(".html").name for name in NAMES if name.startswith("docs/")}
    assert expected <= {path.name for path in site.glob("*.html")}
    home = (site / "index.html").read_text(encoding="utf-8")
    assert "Which command do I need?" in home and 'src="images/report.png"' in home


class SitePage(HTMLParser):
    """The links of a built page, and the anchors that links may name."""

    def __init__(self, path: Path):
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str | None] = {None, ""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collects what an element links to, and what it is named."""
        named = dict(attrs)
        self.links += [link for key in ("href", "src") if (link := named.get(key))]
        self.anchors |= {named.get("id"), named.get("name")}


@pytest.mark.slow
def test_every_link_of_the_built_site_leads_to_a_file_and_an_anchor(site: Path) -> None:
    """Also those that MkDocs does not check: of the theme, of the generated reference, of the README as home page."""
    pages = {path.name: SitePage(path) for path in site.glob("*.html") if path.name != "404.html"}
    found = [(page, urlsplit(link)) for page, one in pages.items() for link in one.links]
    inside = [(page, link) for page, link in found if not link.scheme and not link.netloc]
    assert len(inside) > 1000
    missing = [(page, link.path) for page, link in inside if link.path and not (site / unquote(link.path)).exists()]
    assert missing == []
    named = [(page, pages.get(link.path or page), unquote(link.fragment)) for page, link in inside if link.fragment]
    assert [(page, anchor) for page, target, anchor in named if target and anchor not in target.anchors] == []


@pytest.mark.slow
def test_the_site_loads_nothing_from_a_server(site: Path) -> None:
    tags = r"<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=[\"']?((?:https?:)?//[^\s\"'>]+)"
    assert [found for path in site.glob("*.html") for found in re.findall(tags, path.read_text(encoding="utf-8"))] == []
    styles = " ".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert re.findall(r"url\([\"']?(?:https?:)?//|@import", styles) == []
    assert (site / "search" / "search_index.js").is_file(), "the search works from disk"


@pytest.mark.slow
def test_the_site_describes_the_python_functions(site: Path) -> None:
    page = (site / "python.html").read_text(encoding="utf-8")
    for name in ("defenses.safe_merge", "defenses.profile", "spec.read_sweep", "report.run.read_run"):
        assert f'id="safecomm.{name}"' in page
