"""The driver stores a sweep's data once: trials read no source, and mix no training set that is there already."""

import shutil
from pathlib import Path

import pytest
from small_sweep import LEAST

from safecomm.errors import DataError
from safecomm.plan.data import examples, split_prompts
from safecomm.spec import Sweep
from safecomm.storage.names import TRAIN_DATA
from safecomm.storage.store import Store
from safecomm.sweep.data import SAFE_ADAPTER, SAFETY, TASK, SweepData, store_data
from safecomm.sweep.training_data import TrainingData

CHAIN = (("safe_instruct", {"ratio": 0.25}),)


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """A sweep with a benchmark in a file of its own."""
    (tmp_path / "own.csv").write_text("question,choice\n" + "".join(f"How many are {n}?,b\n" for n in range(20)))
    own = {"name": "own", "path": str(tmp_path / "own.csv"), "prompt": "question", "reference": "choice"}
    evaluate = LEAST["evaluate"] | {"task": [own, "lab-telecom"]}  # type: ignore[operator]
    finetune = LEAST["finetune"] | {"data": [{"name": "lab-telecom", "limit": 40}]}  # type: ignore[operator]
    changes = {"arms": {}, "evaluate": evaluate, "finetune": finetune, "storage": str(tmp_path / "runs")}
    return Sweep.model_validate(LEAST | changes)


def test_trials_get_the_same_data_without_its_sources(sweep: Sweep, tmp_path: Path) -> None:
    there = {split: split_prompts(sweep, split) for split in ("search", "report")}
    stored = store_data(sweep, Store.of(sweep.storage))
    (tmp_path / "own.csv").unlink()
    assert {split: stored.prompts(split) for split in there} == there
    assert stored.examples(TASK) == examples(sweep.finetune.data[0])
    assert stored.examples(SAFETY) == stored.examples(SAFE_ADAPTER) != ()
    moved = sweep.model_copy(update={"name": "other"})
    assert store_data(moved, Store.of(sweep.storage)).folder == stored.folder, "the prompts are still in memory"


def test_other_data_has_another_folder(sweep: Sweep) -> None:
    fewer = sweep.model_copy(update={"finetune": sweep.finetune.model_copy(update={"safety_data": None})})
    store = Store.of(sweep.storage)
    assert store_data(fewer, store).folder != store_data(sweep, store).folder


def mixed(data: SweepData, seed: int = 0) -> tuple[Path, Path]:
    """Returns the training sets of SafeInstruct and of the safe adapter, as trials ask for them."""
    from safecomm.defenses.methods.safe_instruct import SafeInstruct

    sets = TrainingData(data, Store.of(data.sweep.storage))
    return sets.mixed(CHAIN, [SafeInstruct(ratio=0.25)], seed), sets.safe(seed)


def test_a_training_set_is_mixed_once_and_named_as_without_stored_data(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = store_data(sweep, Store.of(sweep.storage))
    first = mixed(stored)
    assert first == mixed(SweepData(sweep))
    assert sum(1 for _ in (first[0] / TRAIN_DATA).open()) == 50

    def read(*_: object) -> None:
        raise DataError("the data was read again")

    monkeypatch.setattr(SweepData, "examples", read)
    assert mixed(stored) == first
    with pytest.raises(DataError, match="read again"):
        mixed(stored, seed=1)


def test_a_training_set_that_is_gone_is_mixed_again(sweep: Sweep) -> None:
    stored = store_data(sweep, Store.of(sweep.storage))
    first, _ = mixed(stored)
    text = (first / TRAIN_DATA).read_text()
    shutil.rmtree(first)
    assert mixed(stored)[0] == first and (first / TRAIN_DATA).read_text() == text
