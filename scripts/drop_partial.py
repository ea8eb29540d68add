"""Makes an environment forget the packages that an interrupted installation left half written, so they come again.

.venv/bin/python scripts/drop_partial.py
"""

import csv
import shutil
import sysconfig
from pathlib import Path


def main() -> None:
    """Deletes the metadata of half-written packages, and what pip moved aside to replace."""
    site = Path(sysconfig.get_path("purelib"))
    for metadata in site.glob("*.dist-info"):
        if not is_whole(metadata):
            print(f"{metadata.stem} is incomplete and is installed again")
            shutil.rmtree(metadata)
    for aside in site.glob("~*"):
        shutil.rmtree(aside, ignore_errors=True)


def is_whole(metadata: Path) -> bool:
    """Returns whether a package has all files that its RECORD lists, each as long as it says.

    Args:
        metadata: its `.dist-info` folder.
    """
    record = metadata / "RECORD"
    if not record.exists():
        return False
    with record.open(newline="", encoding="utf-8") as file:
        rows = [(metadata.parent / name, size) for name, _, size in csv.reader(file) if not name.endswith(".pyc")]
    return all(path.exists() and path.stat().st_size >= int(size or 0) for path, size in rows)


if __name__ == "__main__":
    main()
