"""The lab models that ship with the package: `lab://base`, `lab://aligned` and `lab://guard`."""

import shutil
from pathlib import Path

from safecomm.storage.checksums import file_digest
from safecomm.storage.store import Store

MODELS = Path(__file__).parent / "models"
NAMES = ("base", "aligned", "guard")


def shipped_model(name: str, store: Store) -> Path:
    """Returns a model's folder in the store, which all nodes of a cluster share.

    Args:
        name: one of `NAMES`.
        store: the store; the model (2 MB) is copied there on first use.
    """
    folder = MODELS / name
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    inputs = {"model": name, "files": {file: file_digest(folder / file) for file in files}}

    def copy(out: Path) -> None:
        for file in files:
            shutil.copyfile(folder / file, out / file)

    return store.obtain("lab", inputs, copy)
