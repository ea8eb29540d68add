"""What `safecomm data list` and `safecomm data show` print, as plain values."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safecomm.data.catalog.registry import DATASETS, entry_of, naming
from safecomm.data.rows import Example, Loaded, Prompt

HARMFUL = {"red_team", "safety"}
"""The roles whose rows hold harmful requests."""
SHOWN = 12
"""Characters of such a row that are shown."""


def overview() -> list[dict[str, Any]]:
    """Returns a line for each dataset: `name`, `title`, `roles`, `licence`, `where` it lives, its `page`."""
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
    """Returns what a dataset's rows come to.

    Args:
        name: a name of `safecomm data list`.
        path: a local copy.
        reveal: show an example of harmful requests in full; only its first characters otherwise.

    Returns:
        `name`, `title`, `licence`; `read` (rows of the file), `rows` (used), `skipped` (reason -> rows), `remarks`
        (what is unusual -> rows); `train` (training examples), `test` (prompts); of the prompts `search`, `report` and
        `categories` (category -> prompts); `example`, the first prompt or training example.

    Raises:
        DataError: if the dataset can't be had or is of another format.
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
        "skipped": prompts.skipped | examples.skipped,  # both readers count over the whole table
        "remarks": remarks,
        "train": len(examples.rows),
        "test": len(prompts.rows),
        **_counts(prompts.rows),
        "example": _example([*prompts.rows, *examples.rows], masked=bool(entry.roles & HARMFUL) and not reveal),
    }


def _counts(prompts: Sequence[Prompt]) -> dict[str, Any]:
    splits = Counter(prompt.side for prompt in prompts)
    categories = Counter(prompt.category or "none given" for prompt in prompts)
    return {"search": splits["search"], "report": splits["report"], "categories": dict(categories.most_common())}


def _example(rows: Sequence[Prompt | Example], masked: bool) -> dict[str, str]:
    if not rows:
        return {}
    first = rows[0]
    texts = {"prompt": first.text, "target": first.target} if isinstance(first, Prompt) else asdict(first)
    return {key: f"{text[:SHOWN]}..." if masked else text for key, text in texts.items() if text}
