"""Damages files of all kinds, at random and the same in every session."""

import copy
import io
import json
import random
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

NASTY: list[Any] = [
    *(None, True, False, 0, -1, 1, 10**30, 2**63, 0.5, -0.0, 1e308, float("nan"), float("inf"), float("-inf")),
    *("", " ", "x", "²", "\0", "é", "../../x", "~nouser/x", "[/bold]", "a: b", "\x1b[31m", "=1+1", "9" * 5000, "/"),
    *([], {}, [None], [[]], {"": None}, {"a": {"b": []}}, ["x", "x"], [1, "x"]),
]


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


def spoiled(value: Any, rng: random.Random) -> Any:
    """Returns a JSON value with one to three parts replaced, removed, renamed or repeated."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice([1, 1, 2, 3])):
        found = [place for place in places(value) if place]
        if not found:
            return copy.deepcopy(rng.choice(NASTY))
        *parents, last = rng.choice(found)
        node = value
        for key in parents:
            node = node[key]
        kind = rng.randrange(5)
        if kind < 3:
            node[last] = copy.deepcopy(rng.choice(NASTY))
        elif kind == 3:
            del node[last]
        elif isinstance(node, dict):
            node[rng.choice(["x", "", "value", "²", "name", last + "s"])] = node.pop(last)
        else:
            node.append(node[last])
    return value


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Returns bytes that were cut, altered, repeated or replaced."""
    at = rng.randrange(max(1, len(content)))
    kinds = [
        content[:at],
        content[at:],
        content[:at] + rng.randbytes(4) + content[at + 4 :],
        content[:at] + content[max(0, at - 40) :],
        rng.choice([b"", b"\0", b"[]", b"{}", b"null", b"\xff\xfe", b"[" * 5000, b"9" * 5000, b'"\\ud800"']),
    ]
    return rng.choice(kinds)


def spoil(file: Path, whole: bytes, rng: random.Random) -> None:
    """Writes a damaged version of a file: of its values where it holds JSON, YAML or a table, else of its bytes."""
    if file.suffix in (".json", ".yaml") and rng.random() < 0.7:
        value = spoiled(yaml.load(whole, yaml.CSafeLoader) if file.suffix == ".yaml" else json.loads(whole), rng)
        text = json.dumps(value) if file.suffix == ".json" else yaml.dump(value, Dumper=yaml.CSafeDumper)
        file.write_bytes(text.encode())
    elif file.suffix == ".parquet" and rng.random() < 0.7:
        table = pd.read_parquet(io.BytesIO(whole))
        column = rng.choice(list(table))
        options = [table.drop(columns=column), table.iloc[: rng.randrange(len(table))], pd.concat([table, table])]
        options += [
            table.assign(**{column: rng.choice([None, 1, 1.5, "x", "[1]", "{}", float("nan"), float("inf")])})
        ] * 3
        rng.choice(options).to_parquet(file)
    else:
        file.write_bytes(damaged(whole, rng))
