"""The index of an evidence pack: its files, and which of them helps with which heading of law and framework."""

from collections.abc import Iterator

from safecomm.report.gate_output import subject
from safecomm.report.pack.contents import FILES, Contents
from safecomm.report.pack.headings import NOT_MEASURED, Heading, parts
from safecomm.storage.names import MANIFEST

HARMFUL = (
    "**Harmful text:** `samples.parquet`, `logs` and `report.html` contain harmful prompts and the models' answers to "
    "them, unmasked. Store and share them accordingly. This page and the model card quote none."
)
NO_CLAIM = (
    "It is documentation that helps with the headings below. It is no claim of conformity with any law, standard or "
    "framework, and no legal advice. *Not measured* means that this sweep has no result on it."
)


def index(contents: Contents) -> str:
    """Returns the index as Markdown."""
    release = contents.release
    lines = [
        f"# Evidence: {subject(release)}",
        "",
        f"Adapter `{release.trial['adapter']}`, measured on the {release.trial['split']} split beside "
        f"{', '.join(one.arm for one in contents.arms[1:]) or 'no reference arm'}.",
        "",
        NO_CLAIM,
        "",
        HARMFUL,
        "",
        f"`safecomm verify` on this folder compares every file with `{MANIFEST}`; `inspect view --log-dir logs` shows "
        "the answers.",
        "",
        "## Files",
        "",
        "| file | content |",
        "|---|---|",
        *(f"| {_link(name)} | {what} |" for name, what in FILES.items() if name in contents.files),
        "",
        *(line for part in parts(contents) for line in (f"## {part.title}", "", *_table(part.headings, contents), "")),
    ]
    return "\n".join(" ".join(line.split()) for line in lines)  # a name with newlines can't add lines


def _table(headings: list[Heading], contents: Contents) -> Iterator[str]:
    yield "| heading | answered by | remark |"
    yield "|---|---|---|"
    for one in headings:
        links = "" if one.is_open else ", ".join(_link(name) for name in one.files if name in contents.files)
        lacking = "" if links or one.is_open else f"{NOT_MEASURED}: the run has no {' or '.join(one.files)}"
        remark = lacking or one.remark
        yield f"| {one.title} | {links or '-'} | {remark.replace('|', ' ')} |"


def _link(name: str) -> str:
    return f"[{name}]({name})"
