"""Reads published files: CSV, JSON, JSON Lines, Parquet, and zip archives of these."""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from safecomm.data.table import SURPLUS, Raw, Table
from safecomm.errors import DataError
from safecomm.storage.input_files import MAX_BYTES, decode, parse_json, read_bytes

MAX_ROWS = 50_000_000
"""The most rows that are read from a Parquet file, whose compression could hide any number of them."""


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
    try:
        path = path.expanduser()
        parts = sorted(part for pattern in published if "*" in pattern for part in path.glob(pattern))
        several = bool(parts) and path.is_dir()
        files = parts if several else [_locate(path, published)]
    except (OSError, ValueError, RuntimeError) as error:  # NUL, too long, an unknown user
        raise DataError(f"{path}: is not a path ({getattr(error, 'strerror', None) or error})") from error
    tables = [(file, _read_file(file, password)) for file in files]
    if not several:
        return tables[0][1]
    return Table([{**row, "file": part.stem} for part, table in tables for row in table.rows], str(path))


def _read_file(file: Path, password: str) -> Table:
    try:
        content = read_bytes(file)
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
        without = f" that contains no {' or '.join(published)}" if published else ""
        raise DataError(f"{path}: is a folder{without}; give the path of the file")
    return found


def _unzip(content: bytes, where: str, password: str) -> tuple[str, bytes]:
    """Returns the name and content of an archive's data file. The standard library can't open AES-encrypted ones."""
    import pyzipper

    try:
        with pyzipper.AESZipFile(io.BytesIO(content)) as archive:
            members = [member for member in archive.infolist() if Path(member.filename).suffix.lower() in FORMATS]
            if len(members) != 1:
                raise DataError(
                    f"{where}: contains {len(members)} data files instead of one; unpack it and give the file's path"
                )
            if members[0].file_size > MAX_BYTES:
                raise DataError(f"{where}: unpacks to {members[0].file_size:,} bytes, more than {MAX_BYTES:,}")
            with archive.open(members[0], pwd=password.encode() or None) as file:
                return members[0].filename, file.read(MAX_BYTES)
    except DataError:
        raise
    except Exception as error:  # zipfile, its decompressors and its ciphers raise many types
        if type(error) is RuntimeError:  # what zipfile raises for a wrong password
            why = "the published password does not open it"
            raise DataError(f"{where}: {why}; download it again or unpack it") from error
        raise DataError(f"{where}: is not a valid zip archive ({error}); download it again") from error


def _text(content: bytes, where: str) -> str:
    try:
        return decode(content)
    except ValueError as error:
        raise DataError(f"{where}: {error}; download it again or convert it") from error


def _csv(content: bytes, where: str) -> list[Raw]:
    text = io.StringIO(_text(content, where), newline="")
    try:
        rows = csv.DictReader(text, restkey=SURPLUS, strict=True)
        columns = list(rows.fieldnames or [])
        if repeated := [column for column, count in Counter(columns).items() if column and count > 1]:
            raise DataError(f"{where}: has the column {repeated[0]!r} more than once; rename one of them")
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
    text = _text(content, where)
    try:
        values = parse_json(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return _json_lines(content, where)
        raise DataError(f"{where}: is not valid JSON ({error}); download it again") from error
    except ValueError as error:
        raise DataError(f"{where}: {error}; use the dataset's original file") from error
    if isinstance(values, dict):
        values = list(values.values())
    return _objects(values, where)


def _json_lines(content: bytes, where: str) -> list[Raw]:
    rows = []
    for number, line in enumerate(_text(content, where).split("\n"), start=1):
        try:
            if line.strip():
                rows.append(parse_json(line))
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: line {number} is not valid JSON ({error.msg}); download it again") from error
        except ValueError as error:
            raise DataError(f"{where}: line {number} {error}; correct or remove it") from error
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
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(content))
        size = sum(file.metadata.row_group(at).total_byte_size for at in range(file.metadata.num_row_groups))
        if file.metadata.num_rows > MAX_ROWS or size > MAX_BYTES:
            raise DataError(f"{where}: has {file.metadata.num_rows:,} rows of {size:,} bytes, more than are read")
        table = file.read()
        rows: list[Raw] = table.to_pylist()
    except DataError:
        raise
    except Exception as error:  # pyarrow raises its own types, OSError, ValueError, OverflowError, MemoryError...
        raise DataError(f"{where}: is not a valid Parquet file; download it again") from error
    return rows


FORMATS: dict[str, Callable[[bytes, str], list[Raw]]] = {
    ".csv": _csv,
    ".json": _json,
    ".txt": _json,
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}
