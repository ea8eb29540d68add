"""Local files: all published formats load, and broken files give one clear message with the path."""

import csv
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import pyzipper

from safecomm.data.files import read_table
from safecomm.data.table import SURPLUS
from safecomm.errors import DataError

ROWS = [{"goal": "first, with a comma", "target": "one\ntwo"}, {"goal": "zweites Übel", "target": "three"}]


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def as_csv(path: Path) -> Path:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["goal", "target"])
        writer.writeheader()
        writer.writerows(ROWS)
    return path


def test_csv_with_newlines_in_fields_and_a_byte_order_mark(tmp_path: Path):
    table = read_table(as_csv(tmp_path / "a.csv"))
    assert table.rows == ROWS
    assert table.columns == ["goal", "target"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.json", json.dumps(ROWS)),
        ("keyed.txt", json.dumps({"question 0": ROWS[0], "question 1": ROWS[1]}, indent=1).replace("\n", "\r\n")),
        ("lines.jsonl", "\n".join(map(json.dumps, ROWS)) + "\n\n"),
        ("lines_despite_its_name.json", "\r\n".join(map(json.dumps, ROWS))),
    ],
)
def test_json_in_all_forms(tmp_path: Path, name: str, content: str):
    assert read_table(written(tmp_path / name, content)).rows == ROWS


def test_json_lines_of_a_single_row(tmp_path: Path):
    assert read_table(written(tmp_path / "one.jsonl", json.dumps(ROWS[0]))).rows == ROWS[:1]


def test_parquet(tmp_path: Path):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet").rows == ROWS


def zipped(path: Path, members: dict[str, str], password: str = "") -> Path:
    encryption = {"encryption": pyzipper.WZ_AES} if password else {}
    with pyzipper.AESZipFile(path, "w", compression=pyzipper.ZIP_DEFLATED, **encryption) as archive:
        if password:
            archive.setpassword(password.encode())
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("password", ["", "opensesame"])
def test_zip_archives_with_and_without_aes(tmp_path: Path, password: str):
    file = zipped(tmp_path / "a.zip", {"data/rows.txt": json.dumps(ROWS), "README.md": "read me"}, password)
    assert read_table(file, password=password).rows == ROWS


def test_folder_finds_its_published_file(tmp_path: Path):
    as_csv(tmp_path / "Goals.CSV")
    written(tmp_path / "LICENSE.txt", "no data")
    assert read_table(tmp_path, ["rows.json", "goals.csv"]).rows == ROWS
    with pytest.raises(DataError, match=r"is a folder that contains no rows\.json or other\.csv"):
        read_table(tmp_path, ["rows.json", "other.csv"])


def test_extra_fields_are_kept_separately(tmp_path: Path):
    """So that a reader can count the row instead of using half a prompt."""
    table = read_table(written(tmp_path / "a.csv", "goal,target\nfirst, with a comma,one\n"))
    assert table.rows[0][SURPLUS] == ["one"]


def test_a_missing_file(tmp_path: Path):
    with pytest.raises(DataError, match=r"nowhere\.csv: no such file or folder"):
        read_table(tmp_path / "nowhere.csv")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"\xff\xfe\x00broken", "not UTF-8"),
        ("a.csv", 'goal\n"never closed', "not valid CSV"),
        ("a.csv", "goal,target\n", "contains no rows"),
        ("a.json", "", "not valid JSON"),
        ("a.json", '[{"goal": "cut off', "not valid JSON"),
        ("a.json", "[]", "contains no rows"),
        ("a.json", "7", "a single JSON value instead of rows"),
        ("a.json", '[{"goal": "x"}, "y"]', "row 2 is not a JSON object"),
        ("a.jsonl", '{"goal": "x"}\n{"goal": ', "line 2 is not valid JSON"),
        ("a.parquet", "PAR1 not", "not a valid Parquet"),
        ("a.zip", "not an archive", "not a valid zip archive"),
        ("a.pdf", "%PDF", "unknown file type; supported: .csv"),
    ],
)
def test_broken_files(tmp_path: Path, name: str, content: str | bytes, message: str):
    file = written(tmp_path / name, content)
    with pytest.raises(DataError, match=message) as caught:
        read_table(file)
    assert str(caught.value).startswith(str(file))


def test_unreadable_archives(tmp_path: Path):
    locked = zipped(tmp_path / "locked.zip", {"rows.json": json.dumps(ROWS)}, "another word")
    for password in ("opensesame", ""):
        with pytest.raises(DataError, match=r"locked\.zip: the published password does not open it"):
            read_table(locked, password=password)
    with pytest.raises(DataError, match="contains 2 data files instead of one"):
        read_table(zipped(tmp_path / "two.zip", {"a.json": "[]", "b.json": "[]"}))
    whole = zipped(tmp_path / "cut.zip", {"rows.json": json.dumps(ROWS)}, "opensesame").read_bytes()
    with pytest.raises(DataError, match="not a valid zip archive"):
        read_table(written(tmp_path / "cut.zip", whole[:-40]), password="opensesame")
    broken = whole.replace(whole[80:90], b"0123456789", 1)
    with pytest.raises(DataError, match="download it again"):
        read_table(written(tmp_path / "cut.zip", broken), password="opensesame")
