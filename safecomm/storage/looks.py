"""Counts how often a set of report prompts was used for a certificate, across the sweeps of a store."""

import json
from datetime import UTC, datetime
from typing import Any

from safecomm.storage import shared
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
    with shared.exclusive(store.scratch / f"looks-{prompts}.lock"):
        shared.fetch(path.parent)
        looks: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
        known = [look["adapters"] for look in looks]
        if adapters not in known:
            looks.append({"adapters": adapters, "at": datetime.now(UTC).isoformat(timespec="seconds")})
            write_json(path, looks)
            shared.publish(path)
            return len(looks)
        return known.index(adapters) + 1
