"""A stage's output appears whole or not at all, once, under a key that names its inputs."""

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safecomm.errors import UsageError
from safecomm.store import Store, digest, lineage

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_a_digest_ignores_the_order_of_keys(value: dict[str, object]) -> None:
    assert digest(value) == digest(dict(reversed(value.items())))


def test_a_digest_tells_values_apart() -> None:
    assert len({digest(value) for value in ({"a": 1}, {"a": 2}, {"b": 1}, {"a": "1"}, [1], 1, None)}) == 7


def test_a_finished_stage_is_made_once_and_says_what_it_was_made_from(tmp_path: Path) -> None:
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


def test_a_stage_that_fails_leaves_nothing_and_can_be_made_later(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def fail(out: Path) -> None:
        (out / "half.txt").write_text("half")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        store.obtain("stage", {"x": 1}, fail)
    assert store.find("stage", digest({"x": 1})) is None
    assert not list(tmp_path.rglob("half.txt"))
    assert store.obtain("stage", {"x": 1}, lambda out: None).is_dir()


def test_whoever_asks_for_a_stage_that_is_being_made_waits_for_it(tmp_path: Path) -> None:
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


def test_a_bucket_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="s3://bucket"):
        Store("s3://bucket/runs")
