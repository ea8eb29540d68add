"""A full disk is reported once, by name, and finished work is kept."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from safecomm.errors import DiskFullError, TrainingError
from safecomm.serving.responses import Responses
from safecomm.serving.stream import ID
from safecomm.storage.store import Store, digest, write_json

KIB = 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def write_much(out: Path) -> None:
    (out / "much").write_bytes(bytes(512 * KIB))


def save_tensor(out: Path) -> None:
    save_file({"weight": torch.zeros(512 * KIB)}, out / "adapter_model.safetensors")


def train_on_another_machine(out: Path) -> None:
    raise TrainingError("the fine-tune failed 2 times: OSError: [Errno 28] No space left on device")


@pytest.mark.parametrize("make", [write_much, save_tensor, train_on_another_machine])
def test_full_disk_is_named_and_the_stage_retried_later(small_disk: Path, make) -> None:
    store = Store(small_disk / "store")
    done = store.obtain("stage", {"x": 1}, lambda out: (out / "small").write_bytes(bytes(KIB)) and None)
    with pytest.raises(DiskFullError, match=r"the disk is full.*MB left.*same command again") as told:
        store.obtain("stage", {"x": 2}, make)
    if make is not train_on_another_machine:  # which may be of any disk
        assert str(small_disk) in str(told.value)
    assert store.find("stage", digest({"x": 1})) == done
    assert store.find("stage", digest({"x": 2})) is None
    assert store.obtain("stage", {"x": 2}, lambda out: None).is_dir()


def test_nested_stages_report_a_full_disk_once(small_disk: Path) -> None:
    store = Store(small_disk)
    with pytest.raises(DiskFullError) as told:
        store.obtain("outer", {}, lambda out: store.obtain("inner", {}, write_much) and None)
    assert str(told.value).count("disk is full") == 1


def test_other_errors_are_passed_on(small_disk: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Store(small_disk).obtain("stage", {}, lambda out: (out / "no" / "such").write_text("") and None)


def test_record_that_does_not_fit_keeps_the_old_one(small_disk: Path) -> None:
    write_json(small_disk / "record.json", {"old": 1})
    with pytest.raises(DiskFullError, match="disk is full"):
        write_json(small_disk / "record.json", {"new": "x" * 512 * KIB})
    assert [path.name for path in small_disk.iterdir()] == ["record.json"]
    assert "old" in (small_disk / "record.json").read_text()


def test_answers_that_do_not_fit_keep_earlier_ones(small_disk: Path) -> None:
    responses = Responses(Store(small_disk), {})
    responses.keep(pd.DataFrame({ID: ["a"], "response": "yes", "error": ""}))
    many = [f"{number:x}" * 50 for number in range(9_000, 19_000)]
    with pytest.raises(DiskFullError):
        responses.keep(pd.DataFrame({ID: many, "response": many, "error": ""}))
    assert list(responses.kept()[ID]) == ["a"]
