"""A model's identity depends only on its contents, and large files are hashed once."""

import hashlib
import os
from pathlib import Path

import pytest

from safecomm.serving import identity as module
from safecomm.serving.identity import identity
from safecomm.storage.store import Store


@pytest.fixture(autouse=True)
def every_file_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ALWAYS_HASHED", 4)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def model(folder: Path, weights: bytes = b"weights", changed: int = 1) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    os.utime(folder / "model.safetensors", (changed, changed))
    return folder


def test_a_later_copy_has_the_same_identity(store: Store, tmp_path: Path) -> None:
    assert identity(model(tmp_path / "a"), store) == identity(model(tmp_path / "b", changed=2), store)
    assert identity(tmp_path / "a", store) != identity(model(tmp_path / "c", b"others!"), store)


def test_a_large_file_is_read_once(store: Store, tmp_path: Path) -> None:
    first = identity(model(tmp_path / "a"), store)
    (tmp_path / "a" / "model.safetensors").write_bytes(b"altered")
    os.utime(tmp_path / "a" / "model.safetensors", (1, 1))
    assert identity(tmp_path / "a", store) == first
    os.utime(tmp_path / "a" / "model.safetensors", (2, 2))
    assert identity(tmp_path / "a", store) != first


def test_a_large_file_from_the_hub_is_not_read_at_all(store: Store, tmp_path: Path) -> None:
    there = model(tmp_path / "a")
    blob = tmp_path / "blobs" / hashlib.sha256(b"weights").hexdigest()
    blob.parent.mkdir()
    os.truncate(blob, 7) if blob.exists() else blob.write_bytes(bytes(7))
    snapshot = model(tmp_path / "snapshot")
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to(blob)
    assert identity(snapshot, store) == identity(there, store)
