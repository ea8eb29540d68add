"""A stage's output is created atomically, once, under a key of its inputs."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safecomm.storage import checksums
from safecomm.storage.names import LINEAGE
from safecomm.storage.store import Store, digest, lineage, stage_damage

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_a_digest_ignores_the_order_of_keys(value: dict[str, object]) -> None:
    assert digest(value) == digest(dict(reversed(value.items())))


def test_digest_depends_on_values() -> None:
    assert len({digest(value) for value in ({"a": 1}, {"a": 2}, {"b": 1}, {"a": "1"}, [1], 1, None)}) == 7


def test_stage_is_computed_once_and_records_its_inputs(tmp_path: Path) -> None:
    store, calls = Store(tmp_path), []

    def make(out: Path) -> None:
        calls.append(out)
        (out / "result.txt").write_text("done")

    first, again = store.obtain("stage", {"x": 1}, make), store.obtain("stage", {"x": 1}, make)
    other = store.obtain("stage", {"x": 2}, make)
    assert first == again != other
    assert len(calls) == 2
    assert (first / "result.txt").read_text() == "done"
    assert lineage(first)["inputs"] == {"x": 1}


def test_failed_stage_leaves_nothing_and_can_be_retried(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail(out: Path) -> None:
        (out / "half.txt").write_text("half")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        store.obtain("stage", {"x": 1}, fail)
    assert store.find("stage", digest({"x": 1})) is None
    assert not list(tmp_path.rglob("half.txt"))
    assert store.obtain("stage", {"x": 1}, lambda out: None).is_dir()


def test_concurrent_requests_wait_for_one_computation(tmp_path: Path) -> None:
    store, calls, begun = Store(tmp_path), [], threading.Event()
    release = threading.Event()

    def slow(out: Path) -> None:
        calls.append(out)
        begun.set()
        release.wait(timeout=30)

    threads = [threading.Thread(target=store.obtain, args=("stage", {"x": 1}, slow)) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert begun.wait(timeout=30)
    release.set()
    for thread in threads:
        thread.join(timeout=30)
    assert len(calls) == 1


def cut_off(folder: Path) -> None:
    os.truncate(folder / "deep" / "weights", 3)


def write_over(folder: Path) -> None:
    """As a disk that goes bad: of the same size, and the time of change is the old one."""
    weights = folder / "deep" / "weights"
    time = weights.stat().st_mtime_ns
    weights.write_bytes(b"WEIGHTS")
    os.utime(weights, ns=(time, time))


def remove_a_file(folder: Path) -> None:
    (folder / "deep" / "weights").unlink()


def remove_the_lineage(folder: Path) -> None:
    (folder / LINEAGE).unlink()


def cut_the_lineage_off(folder: Path) -> None:
    os.truncate(folder / LINEAGE, 20)


def empty_the_lineage(folder: Path) -> None:
    (folder / LINEAGE).write_text("{}")


def spoil_the_checksums(folder: Path) -> None:
    (folder / LINEAGE).write_text(json.dumps(lineage(folder) | {"files": ["what?"]}))


def make_weights(out: Path) -> None:
    (out / "deep").mkdir()
    (out / "deep" / "weights").write_bytes(b"weights")


@pytest.mark.parametrize(
    "harm",
    [
        *(cut_off, write_over, remove_a_file, remove_the_lineage, cut_the_lineage_off, empty_the_lineage),
        spoil_the_checksums,
    ],
)
def test_damaged_stage_is_quarantined_and_recomputed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: Callable[[Path], None]
) -> None:
    folder = Store(tmp_path).obtain("stage", {"x": 1}, make_weights)
    harm(folder)
    checksums._known_digest.cache_clear()  # as in another process
    assert Store(tmp_path).find("stage", folder.name) is None
    assert Store(tmp_path).obtain("stage", {"x": 1}, make_weights) == folder
    assert (folder / "deep" / "weights").read_bytes() == b"weights"
    assert str(folder) in caplog.text and "damaged" in caplog.text
    (reason,) = tmp_path.glob("scratch/damaged-*/reason.txt")
    assert str(folder) in reason.read_text()
    assert Store(tmp_path).obtain("stage", {"x": 1}, pytest.fail) == folder


def test_later_changes_are_detected_in_the_same_process(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = store.obtain("stage", {"x": 1}, make_weights)
    assert store.find("stage", folder.name)
    (folder / "deep" / "weights").write_bytes(b"WEIGHTS")
    assert store.find("stage", folder.name) is None


def test_truncated_large_file_is_detected_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksums, "ALWAYS_HASHED", 3)
    folder = Store(tmp_path).obtain("stage", {"x": 1}, make_weights)
    weights = folder / "deep" / "weights"
    time = weights.stat().st_mtime_ns
    os.truncate(weights, 6)
    os.utime(weights, ns=(time, time))
    assert Store(tmp_path).find("stage", folder.name) is None


def test_large_file_is_rehashed_if_its_mtime_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksums, "ALWAYS_HASHED", 3)
    folder = Store(tmp_path).obtain("stage", {"x": 1}, make_weights)
    os.utime(folder / "deep" / "weights", (0, 0))
    assert Store(tmp_path).find("stage", folder.name) == folder
    (folder / "deep" / "weights").write_bytes(b"WEIGHTS")
    assert Store(tmp_path).find("stage", folder.name) is None


def test_a_large_file_that_only_seems_unchanged_is_found_before_it_is_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checksums, "ALWAYS_HASHED", 3)
    folder = Store(tmp_path).obtain("stage", {"x": 1}, make_weights)
    weights = folder / "deep" / "weights"
    time = weights.stat().st_mtime_ns
    weights.write_bytes(b"WEIGHTS")
    os.utime(weights, ns=(time, time))
    assert Store(tmp_path).find("stage", folder.name) == folder
    assert stage_damage(folder) == "deep/weights was altered"


def test_stages_without_checksums_are_accepted(tmp_path: Path) -> None:
    folder = Store(tmp_path).obtain("stage", {"x": 1}, make_weights)
    old = lineage(folder)
    del old["files"]
    (folder / LINEAGE).write_text(json.dumps(old))
    assert Store(tmp_path).obtain("stage", {"x": 1}, pytest.fail) == folder
