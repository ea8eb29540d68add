"""Whatever a data file holds, its rows are read or one DataError names the file; nothing else is raised."""

import io
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import pyzipper

from safecomm.data import choices, medical, telecom
from safecomm.data.catalog.registry import load_examples, load_prompts
from safecomm.data.custom import Columns
from safecomm.data.files import read_table
from safecomm.data.rows import Loaded
from safecomm.data.table import Table
from safecomm.errors import DataError

ROWS = [{"prompt": f"What is channel {n}?", "choices": ["one", "two"], "answer": "A", "n": n} for n in range(40)]
NASTY = [None, True, 0, -1, 5, 10**3000, 1.5, "", "²", "9" * 5000, "A", [], [None], [[]], {}, {"contexts": 5}, "\x00"]
DIGITS = "9" * 5000
TEXT_FILES = [
    ("a.json", f'[{{"prompt": {DIGITS}}}]', "has a number with thousands of digits"),
    ("a.jsonl", f'{{"prompt": "x"}}\n{{"prompt": {DIGITS}}}', "line 2 has a number with thousands of digits"),
    ("a.json", r'[{"prompt": "\ud800"}]', "surrogate"),
    ("a.jsonl", '{"prompt": "x"}\n{"prompt": "\\uDC00 y"}', "line 2 has a surrogate"),
    ("a.json", "[" * 100_000, "nested too deeply"),
    ("a.jsonl", '{"a":' * 100_000, "line 1 is nested too deeply"),
    ("a.csv", "prompt,prompt\na,b\n", "column 'prompt' more than once"),
    ("a.csv", f'prompt\n"{"x" * 200_000}"\n', "not valid CSV"),
    ("a.json", "\udcff", "not UTF-8"),
]


@pytest.mark.parametrize(("name", "content", "said"), TEXT_FILES, ids=range(len(TEXT_FILES)))
def test_the_file_and_the_row_are_named(tmp_path: Path, name: str, content: str, said: str) -> None:
    file = tmp_path / name
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=said) as caught:
        read_table(file)
    assert str(caught.value).startswith(str(file)) and len(str(caught.value)) < 1000


def test_escaped_pairs_and_escaped_backslashes_are_text(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(r'[{"prompt": "\ud83d\ude00", "path": "C:\\ud800"}]')
    assert read_table(file).rows == [{"prompt": "😀", "path": r"C:\ud800"}]


@pytest.mark.parametrize("name", ["fifo.csv", "folder.csv", "null.csv", "x\0y.csv", "x" * 5000, "~no-such-user/a.csv"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, name: str) -> None:
    file = Path(name) if name.startswith("~") else tmp_path / name
    if name == "fifo.csv":
        os.mkfifo(file)
    elif name == "folder.csv":
        file.mkdir()
    elif name == "null.csv":
        file.symlink_to("/dev/zero")
    with pytest.raises(DataError):
        read_table(file)
    if name == "folder.csv":
        with pytest.raises(DataError, match="it is a folder"):
            read_table(tmp_path, ["*.csv"])


def test_archives_and_tables_that_unpack_to_too_much_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pyzipper.AESZipFile(tmp_path / "a.zip", "w", compression=pyzipper.ZIP_DEFLATED) as archive:
        archive.writestr("../../a.csv", "prompt\n" + "x" * 100_000)
    pyarrow.parquet.write_table(pyarrow.table({"prompt": ["x"] * 100_000}), tmp_path / "a.parquet")
    assert len(read_table(tmp_path / "a.zip").rows) == 1 and not (tmp_path.parent.parent / "a.csv").exists()
    monkeypatch.setattr("safecomm.data.files.MAX_BYTES", 50_000)
    monkeypatch.setattr("safecomm.data.files.MAX_ROWS", 50_000)
    with pytest.raises(DataError, match=r"a\.zip: unpacks to 100,007 bytes"):
        read_table(tmp_path / "a.zip")
    with pytest.raises(DataError, match=r"a\.parquet: has 100,000 rows"):
        read_table(tmp_path / "a.parquet")


def contents() -> dict[str, bytes]:
    table, packed = io.BytesIO(), io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), table)
    with pyzipper.AESZipFile(packed, "w", compression=pyzipper.ZIP_DEFLATED) as archive:
        archive.writestr("rows.json", json.dumps(ROWS))
    lines = "\n".join(map(json.dumps, ROWS)).encode()
    texts = "prompt,answer\n" + "".join(f'"Which, {n}?",A\n' for n in range(40))
    return {
        "a.parquet": table.getvalue(),
        "a.zip": packed.getvalue(),
        "a.jsonl": lines,
        "a.json": json.dumps(ROWS).encode(),
        "a.csv": texts.encode(),
    }


def damaged(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    kind = rng.randrange(4)
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content[:at] + rng.randbytes(8) + content[at + 8 :]
    if kind == 2:
        return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
    return content[:at] + content[at + rng.randrange(1, 64) :]


@pytest.mark.parametrize("name", contents())
def test_damaged_bytes_are_read_or_refused(tmp_path: Path, name: str) -> None:
    rng, whole, refused, file = random.Random(0), contents()[name], 0, tmp_path / name
    for _ in range(100):
        file.write_bytes(damaged(whole, rng))
        try:
            load_prompts("own", file, columns=Columns("prompt", answer="answer"), kind="red_team")
        except DataError as error:
            assert str(file) in str(error)
            refused += 1
    assert refused > 10


READERS: dict[str, Callable[[Table], Loaded[Any]]] = {
    "open-telco": lambda table: choices.questions(table, choices.by_columns("n")),
    "by place": lambda table: choices.questions(table, choices.by_place),
    "teleqna": telecom.examples,
    "pubmedqa": medical.examples,
}
COLUMNS = ("question", "choices", "answer", "n", "0", "1", "2", "option 1", "option 2", "context", "final_decision")


@pytest.mark.parametrize("reader", READERS)
def test_odd_values_in_rows_are_skipped_with_a_reason(reader: str) -> None:
    rng = random.Random(1)
    rows = [{column: rng.choice([*NASTY, "What?"]) for column in COLUMNS} for _ in range(500)]
    loaded = READERS[reader](Table(rows, "here"))  # type: ignore[arg-type]
    assert len(loaded.rows) + sum(loaded.skipped.values()) == len(rows)
    assert len(loaded.skipped) > 1 and all(loaded.skipped)


def test_a_numbered_answer_of_zero_counts(tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    file.write_text(json.dumps([{"q": "Which?", "o": ["one", "two"], "key": 0}]))
    (row,) = load_prompts("exam", file, columns=Columns("q", choices=("o",), answer="key"), kind="task").rows
    assert row.answer == 0


@pytest.mark.parametrize("choice", [5, "two", {"a": 1}, None])
def test_options_that_are_no_list_are_no_options(choice: object) -> None:
    row = {"question": "Which?", "choices": choice, "answer": 0}
    assert choices.by_columns()(row) == "fewer than two options"


def test_training_files_of_odd_values_are_read_or_refused(tmp_path: Path) -> None:
    rng, file = random.Random(2), tmp_path / "TeleQnA.txt"
    for _ in range(100):
        row = {name: rng.choice(NASTY) for name in ("question", "option 1", "option ²", "answer", f"option {DIGITS}")}
        file.write_text(json.dumps({"question 1": row}, default=str))
        with pytest.raises(DataError, match="teleqna: "):
            load_examples("teleqna", file)
