"""Counts how often a set of report prompts was used for a certificate, across the sweeps of a store."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safecomm.errors import UsageError
from safecomm.storage import shared
from safecomm.storage.input_files import read_json
from safecomm.storage.store import Store, write_json


def count_look(store: Store, prompts: str, adapters: str) -> int:
    """Records a look at a set of prompts and returns its number, from 1.

    The same adapters on the same prompts are the same look, however often they are looked at.

    Args:
        store: the store that keeps the record.
        prompts: identifies the prompts.
        adapters: identifies the adapters that were tested on them.
    """
    path = store.root / "looks" / f"{prompts}.json"
    if found := _number(path, adapters):  # without the lock, which would write to a bucket
        return found
    with shared.exclusive(store.scratch / f"looks-{prompts}.lock"):
        if found := _number(path, adapters):
            return found
        looks = [*_looks(path), {"adapters": adapters, "at": datetime.now(UTC).isoformat(timespec="seconds")}]
        write_json(path, looks)
        shared.publish(path)
        return len(looks)


def _number(path: Path, adapters: str) -> int:
    """Returns the number of a look that was recorded before; 0 for a new one."""
    shared.fetch(path.parent)
    known = [look["adapters"] for look in _looks(path)]
    return known.index(adapters) + 1 if adapters in known else 0


def _looks(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    try:
        found: list[dict[str, Any]] = read_json(path)
        _ = [look["adapters"] for look in found]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(
            f"{path}: is damaged, so the looks at the report split can't be counted; restore it from a backup, or "
            "delete it and say so wherever the certificate is shown"
        ) from error
    return found
