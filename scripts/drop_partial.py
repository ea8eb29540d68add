"""Deletes the metadata of packages that an interrupted installation left incomplete, so that they are reinstalled.

.venv/bin/python scripts/drop_partial.py
"""

import csv
import shutil
import sysconfig
from pathlib import Path


def main() -> None:
    """Deletes the metadata of incomplete packages, and the folders that pip renamed while replacing a package."""
    site = Path(sysconfig.get_path("purelib"))
    for metadata in site.glob("*.dist-info"):
        if not is_whole(metadata):
            print(f"{metadata.stem} is incomplete and will be reinstalled")
            shutil.rmtree(metadata)
    for renamed in site.glob("~*"):
        shutil.rmtree(renamed, ignore_errors=True)


def is_whole(metadata: Path) -> bool:
    """Returns whether a package has all files in its RECORD, with the sizes listed there.

    Args:
        metadata: the package's `.dist-info` folder.
    """
    record = metadata / "RECORD"
    if not record.exists():
        return False
    with record.open(newline="", encoding="utf-8") as file:
        rows = [(metadata.parent / name, size) for name, _, size in csv.reader(file) if not name.endswith(".pyc")]
    return all(path.exists() and path.stat().st_size >= int(size or 0) for path, size in rows)


if __name__ == "__main__":
    main()
