"""A manifest detects every change of a folder: altered, missing and added files, and its own damage."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from safecomm.errors import DataError, UsageError
from safecomm.storage.manifest import differences, read_manifest, write_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    (tmp_path / "card.md").write_text("rates")
    (tmp_path / "logs" / "one.eval").write_bytes(bytes(range(256)))
    write_manifest(tmp_path, "safecomm 0")
    return tmp_path


def linked(path: Path) -> None:
    """Moves a file out of its folder and puts a link to it in its place."""
    elsewhere = path.rename(path.parent.with_name(f"{path.parent.name}-{path.name}"))
    path.symlink_to(elsewhere)


def found(folder: Path) -> list[str]:
    return list(differences(folder, read_manifest(folder)))


def test_an_untouched_folder_has_no_differences(folder: Path) -> None:
    assert found(folder) == []
    assert set(read_manifest(folder).files) == {"card.md", "logs/one.eval"} and read_manifest(folder).size == 261


@pytest.mark.parametrize("at", [0, 128, 255])
def test_any_byte_counts(folder: Path, at: int) -> None:
    log = folder / "logs" / "one.eval"
    content = bytearray(log.read_bytes())
    content[at] ^= 1
    log.write_bytes(content)
    assert found(folder) == ["logs/one.eval: was altered (same size)"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "card.md").write_text("rate"), "card.md: was altered (4 bytes instead of 5)"),
        (lambda folder: (folder / "card.md").unlink(), "card.md: is missing"),
        (lambda folder: (folder / "logs" / "two").write_text(""), "logs/two: is not in the manifest"),
        (lambda folder: (folder / "logs" / ".git").mkdir() or (folder / "logs/.git/x").touch(), "logs/.git/x: is not"),
        (lambda folder: (folder / "out").symlink_to("/etc"), "out: is a link or a special file"),
        (lambda folder: os.mkfifo(folder / "out"), "out: is a link or a special file"),
        (lambda folder: linked(folder / "manifest.json"), "manifest.json: is a link or a special file"),
    ],
)
def test_every_kind_of_change_is_named(folder: Path, change: Callable[[Path], object], said: str) -> None:
    change(folder)
    (line,) = found(folder)
    assert line.startswith(said)


def test_a_link_does_not_stand_for_a_file_with_the_same_content(folder: Path) -> None:
    linked(folder / "card.md")
    assert found(folder) == ["card.md: is a link or a special file"]


def test_a_link_never_agrees_with_a_manifest(folder: Path) -> None:
    linked(folder / "card.md")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["card.md"] = {"size": 0, "sha256": "0" * 64}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert found(folder) == ["card.md: is a link or a special file"]


@pytest.mark.parametrize("make", [linked, lambda path: path.unlink() or os.mkfifo(path)])
def test_no_manifest_is_written_of_a_link(folder: Path, make: Callable[[Path], object]) -> None:
    make(folder / "card.md")
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(UsageError, match=r"card\.md: is a link or a special file; replace it with a copy"):
        write_manifest(folder, "safecomm 0")
    assert (folder / "manifest.json").read_bytes() == before


def test_what_the_hub_adds_is_no_difference(folder: Path) -> None:
    (folder / ".gitattributes").write_text("*.parquet filter=lfs")
    (folder / ".cache" / "huggingface").mkdir(parents=True)
    (folder / ".cache" / "huggingface" / "a.metadata").touch()
    assert found(folder) == []


def damaged(**change: object) -> str:
    record = {"size": 1, "sha256": "0" * 64}
    return json.dumps({"version": 1, "made_with": "x", "created": "y", "files": {"a": record}} | change)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        "\ufeff\x00",
        damaged(version=2),
        damaged(files={"a": {"size": -1, "sha256": "0" * 64}}),
        damaged(files={"a": {"size": 1, "sha256": "0"}}),
        damaged(files={"../a": {"size": 1, "sha256": "0" * 64}}),
        damaged(files={"/etc/passwd": {"size": 1, "sha256": "0" * 64}}),
        damaged(files={"a\nb": 1}),
        damaged(more=1),
    ],
)
def test_a_damaged_manifest_is_one_line(folder: Path, text: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json: is damaged: ") as told:
        read_manifest(folder)
    assert "\n" not in str(told.value) and str(told.value).endswith("; get an intact copy of the folder")


def test_a_folder_without_a_manifest_is_no_pack(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no manifest\.json; name a folder"):
        read_manifest(tmp_path)
    with pytest.raises(UsageError, match="there is no such folder"):
        read_manifest(tmp_path / "none")
