"""Damaged files of a store or a run are made again where that is safe, and named where it is not."""

from pathlib import Path

import pytest
from small_sweep import LEAST

from safecomm.errors import UsageError
from safecomm.search.profile_cache import ProfileCache
from safecomm.search.run_folder import RunFolder
from safecomm.serving import identity
from safecomm.spec import Sweep
from safecomm.statistics.selection import ModuleProfile
from safecomm.storage.looks import count_look
from safecomm.storage.names import JUDGES, MODELS
from safecomm.storage.store import Store
from safecomm.sweep.judges import judges_are_measured
from safecomm.sweep.models import resolve_models

DAMAGED = ["", "{", "[1]", '{"modules": [1]}', '"text"', "\udc80"]


def sweep(storage: Path, **evaluate: object) -> Sweep:
    section = LEAST | {"arms": {}, "storage": str(storage), "evaluate": LEAST["evaluate"] | evaluate}  # type: ignore[operator]
    return Sweep.model_validate(section)


def damage(path: Path, content: str) -> None:
    path.write_bytes(content.encode("utf-8", "surrogateescape"))


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_profile_is_measured_again(content: str, tmp_path: Path) -> None:
    cache = ProfileCache(sweep(tmp_path))
    cache.keep({}, 0, [ModuleProfile("layer.0.q_proj", 0.5, 0.1, 0.2, 1.0, 0.5)])
    (file,) = tmp_path.rglob("*.json")
    assert cache.get({}, 0)
    damage(file, content)
    assert cache.get({}, 0) is None


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_digest_is_computed_again(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "ALWAYS_HASHED", 0)
    weights, store = tmp_path / "weights.bin", Store(tmp_path / "store")
    weights.write_bytes(b"weights")
    right = identity._digest(weights, store)
    (file,) = (tmp_path / "store").rglob("*.json")
    damage(file, content)
    assert identity._digest(weights, store) == right == identity._digest(weights, store)


@pytest.mark.parametrize("content", [one for one in DAMAGED if one != '{"modules": [1]}'])
def test_a_damaged_ledger_of_looks_is_named_and_not_started_again(content: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert count_look(store, "prompts", "a") == 1
    damage(tmp_path / "looks" / "prompts.json", content)
    with pytest.raises(UsageError, match=r"looks/prompts\.json: is damaged"):
        count_look(store, "prompts", "b")


def test_recorded_revisions_that_are_damaged_are_named(tmp_path: Path) -> None:
    made = sweep(tmp_path)
    folder = RunFolder(made)
    folder.path.mkdir(parents=True)
    damage(folder.path / MODELS, '{"lab://base": 1}')
    with pytest.raises(UsageError, match=r"models\.json"):
        resolve_models(made, folder, Store.of(made.storage))


def test_judges_whose_record_is_no_object_are_measured_again(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("prompt,response,unsafe\na?,b,1\n")
    damage(tmp_path / JUDGES, "[1]")
    assert not judges_are_measured(sweep(tmp_path, labels=str(labels)), tmp_path)
