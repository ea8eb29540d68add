"""Trials that train released adapters further: which there are, what they share, and when their records hold."""

import copy
from pathlib import Path
from typing import Any

import pytest
from small_sweep import LEAST

from safecomm.errors import TrainingError
from safecomm.search.arms import TAMPER, Trial, seeded
from safecomm.search.fine_tunes import TRAIN
from safecomm.search.record import TrialRecord
from safecomm.search.run_folder import RunFolder
from safecomm.search.tampering import further_training, further_trainings, tamper_trials
from safecomm.spec import Sweep


def sweep(storage: Path, **tamper: Any) -> Sweep:
    section = {"data": "lab-questions", "harmful": "lab-compliance", "steps": [2, 4]} | tamper
    arms = {"safe_lora": [{"safe_lora": {"lowest": 2}}]}
    return Sweep.model_validate({**copy.deepcopy(LEAST), "arms": arms, "storage": str(storage), "tamper": section})


def reported(spec: Sweep) -> list[Trial]:
    return [trial for arm in ("original", "undefended", "safe_lora") for trial in seeded(spec, arm, {}, "report")]


def test_every_adapter_is_trained_once_per_training_set_and_measured_after_every_step(tmp_path: Path) -> None:
    spec = sweep(tmp_path)
    trials = tamper_trials(spec, reported(spec))
    assert {(trial.arm, trial.tamper, trial.steps) for trial in trials} == {
        (arm, curve, steps) for arm in ("undefended", "safe_lora") for curve in ("data", "harmful") for steps in (2, 4)
    }
    assert {trial.split for trial in trials} == {TAMPER}
    trainings = further_trainings(trials)
    assert {(one.arm, one.tamper, one.split) for one in trainings} == {
        (arm, curve, TRAIN) for arm in ("undefended", "safe_lora") for curve in ("data", "harmful")
    }
    ids = [trial.id for trial in [*reported(spec), *trials, *trainings]]
    assert len(set(ids)) == len(ids)


def test_each_learning_rate_is_a_training_of_its_own_and_a_single_one_keeps_the_ids(tmp_path: Path) -> None:
    several = sweep(tmp_path, learning_rate=[1e-4, 1e-3])
    trials = tamper_trials(several, reported(several))
    assert {trial.learning_rate for trial in trials} == {1e-4, 1e-3}
    trainings = further_trainings(trials)
    assert len(trainings) == 2 * len(further_trainings(tamper_trials(sweep(tmp_path), reported(sweep(tmp_path)))))
    assert len({trial.id for trial in [*trials, *trainings]}) == len(trials) + len(trainings)
    single = sweep(tmp_path, learning_rate=1e-3)
    assert [one.id for one in tamper_trials(single, reported(single))] == [
        one.id for one in tamper_trials(sweep(tmp_path), reported(sweep(tmp_path)))
    ]


def test_a_trial_survives_the_way_to_its_process(tmp_path: Path) -> None:
    spec = sweep(tmp_path, learning_rate=[1e-4, 1e-3])
    for trial in tamper_trials(spec, reported(spec)):
        assert Trial.of(trial.as_config()) == trial


def test_records_hold_for_the_same_section_only_and_others_do_not_depend_on_it(tmp_path: Path) -> None:
    spec = sweep(tmp_path)
    plain, *_ = reported(spec)
    tampered, *_ = tamper_trials(spec, reported(spec))
    folder = RunFolder(spec)
    for trial in (plain, tampered):
        folder.keep(TrialRecord.of(trial, "done"))
    assert folder.find(plain)
    record = folder.find(tampered)
    assert record
    assert (record.tamper, record.steps) == ("data", 2)
    changed = RunFolder(sweep(tmp_path, learning_rate=0.5))
    assert changed.find(plain)
    assert changed.find(tampered) is None


def test_a_trial_whose_further_training_failed_does_not_train_again(tmp_path: Path) -> None:
    spec = sweep(tmp_path)
    folder, (trial, *_) = RunFolder(spec), tamper_trials(spec, reported(spec))
    folder.check_fine_tune(trial)
    folder.keep(TrialRecord.of(further_training(trial), "failed", error="no loss"))
    with pytest.raises(TrainingError, match="no loss"):
        folder.check_fine_tune(trial)
