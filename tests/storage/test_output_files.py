"""Every output is written whole or not at all: on a full disk the old one stays, and the rerun completes."""

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import torch

from safecomm.data.sources import _save
from safecomm.defenses.adapter import Adapter, Factors
from safecomm.defenses.alignment import Profile
from safecomm.defenses.realigned import Realigned
from safecomm.errors import DiskFullError, UsageError
from safecomm.judging.results import check_no_others, write_results
from safecomm.storage.output_files import new_folder, unwritable, whole_file
from safecomm.storage.store import write_json, write_text

MUCH = "x" * 400_000
Writer = Callable[[Path], None]


@contextmanager
def small_files() -> Iterator[None]:
    """Lets this process write no file beyond 100 kB, as a full disk or a quota would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def adapter() -> Adapter:
    return Adapter({"q_proj": Factors(torch.randn(8, 8000), torch.randn(8, 8), 1.0)}, {"peft_type": "LORA"}, "here")


def folder_of(write: Writer) -> Writer:
    def make(out: Path) -> None:
        with new_folder(out) as half:
            write(half)

    return make


def results(out: Path) -> None:
    rows = pd.DataFrame({"kind": "red_team", "response": [f"{n}{os.urandom(40).hex()}" for n in range(5000)]})
    rows = rows.assign(verdict="safe", **{"verdict@b": "unsafe"})
    write_results(out, [], rows, ["a", "b"], {}, model="m")


WRITERS: dict[str, Writer] = {
    "a text, as reports and gate files": lambda out: write_text(out / "report.html", MUCH),
    "a record": lambda out: write_json(out / "plan.json", {"a": MUCH}),
    "a download": lambda out: _save(out / "data.csv", MUCH.encode()),
    "results": results,
    "an adapter": lambda out: Realigned(adapter(), "scale", {}, [], {}).save(out / "adapter"),
    "a model": folder_of(lambda half: (half / "model.safetensors").write_bytes(MUCH.encode()) and None),
    "a copied export": folder_of(lambda half: shutil.copy(_big(half.parent), half) and None),
    "a profile": folder_of(
        lambda half: Profile([], {"q": torch.zeros(90_000)}, adapter(), Path("a"), Path("b")).save(half)
    ),
}


def _big(beside: Path) -> Path:
    return beside.parent / "big"


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_one_message_and_leaves_nothing_behind(name: str, tmp_path: Path) -> None:
    (tmp_path / "big").write_text(MUCH)
    out = tmp_path / "x"
    out.mkdir()
    write = WRITERS[name]
    target = out / "new" if name in ("a model", "a copied export", "a profile") else out
    with small_files(), pytest.raises(DiskFullError, match="the disk is full or your quota is used up") as caught:
        write(target)
    assert "\n" not in str(caught.value) and list(out.iterdir()) == []
    write(target)
    assert list(out.iterdir()) != [] and not any(path.name.startswith(".") for path in out.rglob("*"))


def test_what_was_there_stays_when_the_new_one_does_not_fit(tmp_path: Path) -> None:
    results(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with small_files(), pytest.raises(DiskFullError):
        results(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    for write in (lambda: whole_file(tmp_path / "a"), lambda: new_folder(tmp_path / "b")):
        with pytest.raises(KeyboardInterrupt), write() as half:
            (half / "x" if half.is_dir() else half).write_text("half")
            raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_may_be_empty_a_link_or_a_new_volume(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "dangling").symlink_to(tmp_path / "later")
    for name in ("empty", "link", "dangling", "deep/er/new"):
        with new_folder(tmp_path / name) as half:
            (half / "file").write_text("whole")
        assert (tmp_path / name / "file").read_text() == "whole"
    assert (tmp_path / "link").is_symlink() and (tmp_path / "later" / "file").is_file()
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_a_mounted_volume_is_filled_from_within(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(volume)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        (volume / "lost+found").mkdir()
        with new_folder(volume) as half:
            (half / "nested").mkdir()
            (half / "nested" / "file").write_text("whole")
        assert sorted(path.name for path in volume.iterdir()) == ["lost+found", "nested"]
        with pytest.raises(UsageError, match="already exists"), new_folder(volume):
            pass
    finally:
        subprocess.run(["umount", "-l", str(volume)], check=True)


@pytest.mark.parametrize("name", ["file", "full", "file/below", "a\0b", "x" * 300, "/proc/x", "~no-such-user/x"])
def test_an_impossible_output_folder_is_one_message(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").touch()
    folder = Path(name) if name[0] in "/~" else tmp_path / name
    with pytest.raises(UsageError), new_folder(folder):
        pass
    assert name == "full" or unwritable(folder)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_weights_get_the_permissions_of_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        Realigned(adapter(), "scale", {}, [], {}).save(tmp_path / "adapter")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "adapter").iterdir()} == {mode}


@pytest.mark.parametrize("text", ['{"model": "other"}', "", "[]", "{}", "\udcff"])
def test_results_of_another_evaluation_are_not_replaced(tmp_path: Path, text: str) -> None:
    check_no_others(tmp_path / "new", model="m")
    results(tmp_path)
    check_no_others(tmp_path, model="m")
    (tmp_path / "results.json").write_text(text, errors="surrogateescape")
    with pytest.raises(UsageError, match="another evaluation"):
        check_no_others(tmp_path, model="m")
