"""The content of `safecomm data list` and `safecomm data show`, as plain values."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safecomm.data.catalog.registry import DATASETS, entry_of, naming
from safecomm.data.rows import Example, Loaded, Prompt

HARMFUL = {"red_team", "safety"}
"""Roles whose rows contain harmful requests."""
SHOWN = 12
"""Characters shown of such a row."""


def overview() -> list[dict[str, Any]]:
    """Returns an entry per dataset: `name`, `title`, `roles`, `licence`, `where` (its source) and `page`."""
    return [
        {
            "name": name,
            "title": entry.title,
            "roles": sorted(entry.roles),
            "licence": entry.licence,
            "where": entry.where,
            "page": entry.page,
        }
        for name, entry in DATASETS.items()
    ]


def summary(name: str, path: str | Path | None = None, reveal: bool = False) -> dict[str, Any]:
    """Summarizes a dataset's rows.

    Args:
        name: a name from `safecomm data list`.
        path: a local copy.
        reveal: show a harmful example in full instead of only its first characters.

    Returns:
        `name`, `title`, `licence`; `read` (rows in the file), `rows` (used rows), `skipped` (reason -> rows), `remarks`
        (peculiarity -> rows); `train` (training examples), `test` (prompts); for the prompts `search`, `report` and
        `categories` (category -> prompts); `example`, the first prompt or training example.

    Raises:
        DataError: if the dataset is not available or has another format.
    """
    with naming(name):
        entry = entry_of(name)
        table = entry.table(path)
        prompts = entry.benchmark(table, name)
        examples = entry.examples(table) if entry.examples else Loaded[Example]([])
        remarks = entry.remarks(table) if entry.remarks else {}
    return {
        "name": name,
        "title": entry.title,
        "licence": entry.licence,
        "read": len(table.rows) or len(prompts.rows) + len(examples.rows),
        "rows": len(prompts.rows) + len(examples.rows),
        "skipped": prompts.skipped | examples.skipped,  # each reader counts over the whole table
        "remarks": remarks,
        "train": len(examples.rows),
        "test": len(prompts.rows),
        **_counts(prompts.rows),
        "example": _example([*prompts.rows, *examples.rows], masked=bool(entry.roles & HARMFUL) and not reveal),
    }


def _counts(prompts: Sequence[Prompt]) -> dict[str, Any]:
    splits = Counter(prompt.side() for prompt in prompts)
    categories = Counter(prompt.category or "none given" for prompt in prompts)
    return {"search": splits["search"], "report": splits["report"], "categories": dict(categories.most_common())}


def _example(rows: Sequence[Prompt | Example], masked: bool) -> dict[str, str]:
    if not rows:
        return {}
    first = rows[0]
    texts = {"prompt": first.text, "target": first.target} if isinstance(first, Prompt) else asdict(first)
    return {key: f"{text[:SHOWN]}..." if masked else text for key, text in texts.items() if text}
