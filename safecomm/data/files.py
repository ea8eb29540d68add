"""Reads published files: CSV, JSON, JSON Lines, Parquet, and zip archives of these."""

import csv
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from safecomm.data.table import SURPLUS, Raw, Table
from safecomm.errors import DataError


def read_table(path: Path, published: Sequence[str] = (), password: str = "") -> Table:
    """Reads the rows of a file.

    Args:
        path: the file, or a folder that contains one of the `published` names.
        published: the dataset's published file names. A name with `*` matches several files, each a part of the
            dataset; their rows get a column `file` with the file's stem.
        password: the zip archive's password.

    Raises:
        DataError: if the file is missing, has another format or contains no rows.
    """
    path = path.expanduser()
    parts = sorted(part for pattern in published if "*" in pattern for part in path.glob(pattern))
    if path.is_dir() and parts:
        tables = [(part, _read_file(part, password)) for part in parts]
        return Table([{**row, "file": part.stem} for part, table in tables for row in table.rows], str(path))
    return _read_file(_locate(path, published), password)


def _read_file(file: Path, password: str) -> Table:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: can't be read: {error.strerror}") from error
    return parse(content, file.name, str(file), password)


def parse(content: bytes, name: str, where: str, password: str = "") -> Table:
    """Parses rows from a file's content.

    Args:
        content: the bytes.
        name: the file's name; its suffix determines the format.
        where: the file's path or URL, for messages.
        password: the zip archive's password.

    Raises:
        DataError: if the content has another format or contains no rows.
    """
    suffix = Path(name).suffix.lower()
    if suffix == ".zip":
        member, content = _unzip(content, where, password)
        return parse(content, member, f"{where}/{member}")
    if suffix not in FORMATS:
        known = ", ".join([*FORMATS, ".zip"])
        raise DataError(f"{where}: unknown file type; supported: {known}")
    rows = FORMATS[suffix](content, where)
    if not rows:
        raise DataError(f"{where}: contains no rows; download it again")
    return Table(rows, where)


def _locate(path: Path, published: Sequence[str]) -> Path:
    if not path.is_dir():
        if not path.exists():
            raise DataError(f"{path}: no such file or folder; check the path")
        return path
    inside = {entry.name.lower(): entry for entry in sorted(path.iterdir()) if entry.is_file()}
    found = next((inside[name.lower()] for name in published if name.lower() in inside), None)
    if found is None:
        raise DataError(f"{path}: the folder contains no {' or '.join(published)}; give the path of the file")
    return found


def _unzip(content: bytes, where: str, password: str) -> tuple[str, bytes]:
    """Returns the name and content of an archive's data file. The standard library can't open AES-encrypted ones."""
    import pyzipper

    try:
        with pyzipper.AESZipFile(io.BytesIO(content)) as archive:
            members = [name for name in archive.namelist() if Path(name).suffix.lower() in FORMATS]
            if len(members) != 1:
                raise DataError(
                    f"{where}: contains {len(members)} data files instead of one; unpack it and give the file's path"
                )
            return members[0], archive.read(members[0], pwd=password.encode() or None)
    except RuntimeError as error:  # zipfile raises this for a wrong password
        raise DataError(f"{where}: the published password does not open it; download it again or unpack it") from error
    except (zipfile.BadZipFile, pyzipper.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
        raise DataError(f"{where}: is not a valid zip archive ({error}); download it again") from error


def _text(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: is not UTF-8 text; download it again or convert it") from error


def _csv(content: bytes, where: str) -> list[Raw]:
    text = io.StringIO(_text(content, where), newline="")
    try:
        rows = csv.DictReader(text, restkey=SURPLUS, strict=True)
        columns = rows.fieldnames or []
        if len(columns) == 1 and " " in columns[0].strip():
            # A list of prompts without a header: DictReader took the first prompt for one.
            return [
                {"prompt": columns[0]},
                *({"prompt" if key == columns[0] else key: row[key] for key in row} for row in rows),
            ]
        return list(rows)
    except csv.Error as error:
        raise DataError(f"{where}: is not valid CSV ({error}); download it again") from error


def _json(content: bytes, where: str) -> list[Raw]:
    """Parses a list or an object of rows; accepts JSON Lines too, regardless of the suffix."""
    try:
        values = json.loads(_text(content, where))
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return _json_lines(content, where)
        raise DataError(f"{where}: is not valid JSON ({error}); download it again") from error
    if isinstance(values, dict):
        values = list(values.values())
    return _objects(values, where)


def _json_lines(content: bytes, where: str) -> list[Raw]:
    rows = []
    for number, line in enumerate(_text(content, where).split("\n"), start=1):
        try:
            if line.strip():
                rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: line {number} is not valid JSON ({error.msg}); download it again") from error
    return _objects(rows, where)


def _objects(values: Any, where: str) -> list[Raw]:
    if not isinstance(values, list):
        raise DataError(f"{where}: contains a single JSON value instead of rows; use the dataset's original file")
    rows: list[Raw] = []
    for number, value in enumerate(values, start=1):
        if isinstance(value, list):  # unnamed columns are named by position
            value = {str(position): field for position, field in enumerate(value)}
        if not isinstance(value, dict):
            raise DataError(f"{where}: row {number} is not a JSON object; use the dataset's original file")
        rows.append(value)
    return rows


def _parquet(content: bytes, where: str) -> list[Raw]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows: list[Raw] = pyarrow.parquet.read_table(io.BytesIO(content)).to_pylist()
    except pyarrow.ArrowException as error:
        raise DataError(f"{where}: is not a valid Parquet file; download it again") from error
    return rows


FORMATS: dict[str, Callable[[bytes, str], list[Raw]]] = {
    ".csv": _csv,
    ".json": _json,
    ".txt": _json,
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}
