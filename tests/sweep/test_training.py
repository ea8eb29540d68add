"""The fine-tunes of a sweep: what a patch trains on, after which fine-tune, and whose time counts."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_sweep import LEAST
from test_golden_keys import write_adapter

from safecomm.errors import DefenseError
from safecomm.serving.models import ModelFolder
from safecomm.spec import Sweep
from safecomm.storage.names import TRAIN_DATA, TRAINING
from safecomm.storage.store import Store, lineage
from safecomm.sweep.stages import Stages

SECONDS = 10.0
Chain = tuple[tuple[str, dict[str, Any]], ...]


class Untrained(Store):
    """A store in which every fine-tune gives the same adapter after ten seconds on two ranks."""

    def obtain(self, stage: str, inputs: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
        def write(out: Path) -> None:
            write_adapter(out)
            (out / TRAINING).write_text(json.dumps({"seconds": SECONDS, "ranks": 2}))

        return super().obtain(stage, inputs, make if stage == "data" else write)


@pytest.fixture
def stages(tmp_path: Path) -> Stages:
    section = LEAST | {"arms": {}, "storage": str(tmp_path)}
    models = (ModelFolder(tmp_path / name, name) for name in ("base", "aligned"))
    return Stages(Sweep.model_validate(section), *models, Untrained(tmp_path / "store"), on_gpu=False)


def trained(stages: Stages, *chain: tuple[str, dict[str, Any]]) -> tuple[Path, dict[str, Any]]:
    folder = stages.training.finetuned(chain, seed=0)
    return folder, lineage(folder)["inputs"]


def test_a_patch_follows_the_plain_fine_tune_on_batches_of_one_example(stages: Stages) -> None:
    plain, _ = trained(stages)
    _, patched = trained(stages, ("one_shot", {"example": 2, "steps": 3}))
    assert patched["after"] == lineage(plain)["key"]
    assert (patched["steps"], patched["schedule"], patched["warmup"]) == (3, "constant", 0.0)
    data = stages.store.folder("data", patched["data"]) / TRAIN_DATA
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    assert len(rows) == stages.sweep.finetune.batch_size and len({row["prompt"] for row in rows}) == 1


def test_a_patch_keeps_the_learning_rate_of_its_fine_tune_unless_it_has_one(stages: Stages) -> None:
    hyperparameters = ("finetune", {"learning_rate": 3e-5})
    _, kept = trained(stages, hyperparameters, ("one_shot", {}))
    _, own = trained(stages, hyperparameters, ("one_shot", {"patch_learning_rate": 1e-6}))
    assert (kept["learning_rate"], own["learning_rate"]) == (3e-5, 1e-6)


def test_the_time_of_a_patch_counts_its_fine_tune_once(stages: Stages) -> None:
    (plain, _), (one, _), (other, _) = (
        trained(stages, *chain) for chain in ((), [("one_shot", {"example": 1})], [("one_shot", {"example": 2})])
    )
    every = [stages.training.seconds(folder) for folder in (plain, one, other)]
    assert [sum(found.values()) for found in every] == [2 * SECONDS, 4 * SECONDS, 4 * SECONDS]
    together = every[0] | every[1] | every[2]
    assert sum(together.values()) == 6 * SECONDS


def test_an_example_that_is_not_there_is_refused(stages: Stages) -> None:
    with pytest.raises(DefenseError, match=r"there is no example 1000000; finetune\.safety_data has"):
        trained(stages, ("one_shot", {"example": 1_000_000}))


def test_further_training_has_the_learning_rate_of_its_trial_the_section_or_the_fine_tune(stages: Stages) -> None:
    plain, _ = trained(stages)

    def used(section: Any, of_trial: float | None = None) -> float:
        tamper = {"harmful": "lab-compliance", "learning_rate": section}
        sweep = Sweep.model_validate(stages.sweep.resolved() | {"tamper": tamper})
        folder = replace(stages, sweep=sweep).training.tampered(plain, "harmful", 0, of_trial)
        return float(lineage(folder)["inputs"]["learning_rate"])

    assert used(None) == stages.sweep.finetune.learning_rate
    assert used(0.5) == 0.5
    assert used([0.25, 0.125], 0.125) == 0.125
