"""Models from the Hub: which files are downloaded, and how a node gets what another one has in its cache."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.utils import filter_repo_objects

from safecomm.errors import ModelError
from safecomm.storage.hub_cache import blob_digest, download, revision_of
from safecomm.storage.store import local_copy

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = [
    *("config.json", "tokenizer.json", "tokenizer.model", "chat_template.jinja", "README.md"),
    *("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"),
    *("consolidated.safetensors", "consolidated-00001-of-00002.safetensors", "params.json", "pytorch_model.bin"),
]
Hub = Callable[[Path], list[tuple[str, str | None]]]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    """Makes the Hub's client copy the repository into a cache, and returns what it was asked for."""

    def into(cache: Path) -> list[tuple[str, str | None]]:
        asked = []

        def snapshot_download(repository: str, revision: str | None, **patterns: Any) -> str:
            asked.append((repository, revision))
            folder = cache / f"models--{repository.replace('/', '--')}" / "snapshots" / COMMIT
            folder.mkdir(parents=True, exist_ok=True)
            for name in filter_repo_objects(REPOSITORY, **patterns):
                (folder / name).write_text("{}")
            return str(folder)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        return asked

    return into


def test_weights_and_tokenizer_are_downloaded_and_mistrals_own_format_is_not(hub: Hub, tmp_path: Path) -> None:
    hub(tmp_path)
    names = {file.name for file in download("acme/large").iterdir()}
    assert names == set(REPOSITORY[:4]) | set(REPOSITORY[5:8])


def test_a_node_downloads_the_same_commit_into_its_own_cache(hub: Hub, tmp_path: Path) -> None:
    driver = hub(tmp_path / "driver")
    there = download("acme/large-model") / "config.json"
    asked = hub(tmp_path / "node")
    assert local_copy(there) == there and asked == [], "on a shared disk it is there already"
    (tmp_path / "driver").rename(tmp_path / "unmounted")
    assert local_copy(there) == tmp_path / "node" / there.relative_to(tmp_path / "driver")
    assert driver == [("acme/large-model", None)] and asked == [("acme/large-model", COMMIT)]
    assert revision_of(there.parent) == COMMIT and revision_of(tmp_path) is None


def test_a_copy_that_another_process_is_still_downloading_is_not_used(hub: Hub, tmp_path: Path) -> None:
    asked = hub(tmp_path)
    half = tmp_path / "models--acme--large" / "snapshots" / COMMIT
    half.mkdir(parents=True)
    (half / "config.json").write_text("{}")
    assert (local_copy(half) / "tokenizer.json").is_file() and asked == [("acme/large", COMMIT)]


def test_a_model_that_a_node_can_not_get_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(ModelError, match=r"model acme/large: .* not available on the Hub \(ConnectionError\)"):
        local_copy(Path(f"/cache/models--acme--large/snapshots/{COMMIT}"))


def test_the_cache_knows_the_hash_of_a_large_file_and_of_no_other(tmp_path: Path) -> None:
    digest = "ab" * 32
    (tmp_path / "blobs").mkdir()
    for name in (digest, "c" * 40):
        (tmp_path / "blobs" / name).write_bytes(b"weights")
        (tmp_path / name[:1]).symlink_to(tmp_path / "blobs" / name)
    assert blob_digest(tmp_path / "a") == digest[:16]
    assert blob_digest(tmp_path / "c") is None, "git's SHA-1 of a small file"
