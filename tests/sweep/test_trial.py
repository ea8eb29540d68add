"""A failed trial has a one-line error and is retried; a finished one is not."""

from pathlib import Path

import pytest
import torch
from ray.exceptions import ActorDiedError, NodeDiedError, RayTaskError

from safecomm.defenses import Adapter
from safecomm.defenses.adapter import Factors
from safecomm.errors import DataError, ModelError, TrainingError, UnansweredError
from safecomm.plan.data import check_data
from safecomm.search.arms import Trial
from safecomm.search.fine_tunes import fine_tunes_of
from safecomm.search.queue import TrialQueue
from safecomm.search.record import TrialRecord
from safecomm.search.run_folder import RunFolder
from safecomm.serving.models import ModelFolder
from safecomm.spec import Sweep
from safecomm.statistics.metrics import Rate
from safecomm.storage.store import Store
from safecomm.sweep.driver import LOST
from safecomm.sweep.models import given_adapter
from safecomm.sweep.publish import trials_table
from safecomm.sweep.searcher import QueueSearcher
from safecomm.sweep.stages import Stages
from safecomm.sweep.trial import carry_out, failure, is_lost


def sweep(storage: Path, **changes: object) -> Sweep:
    return Sweep.model_validate(
        {
            "name": "trial",
            "model": {"base": "lab://base", "aligned": "lab://aligned"},
            "finetune": {
                "data": [{"name": "lab-telecom", "limit": 96}],
                "safety_data": {"name": "lab-safety", "limit": 8},
                "batch_size": 16,
            },
            "arms": {"too_much": [{"safe_instruct": {"ratio": 9}}]},
            "evaluate": {"red_team": ["lab-harm"], "task": ["lab-telecom"]},
            "storage": str(storage),
            **changes,
        }
    )


def rate(value: float) -> Rate:
    return Rate(value, 0.0, 1.0, 10, 0.0)


TRIAL = Trial("too_much", {}, (("safe_instruct", {"ratio": 9.0}),), seed=0)


def test_too_large_ratio_fails_the_trial_and_suggests_the_largest(tmp_path: Path) -> None:
    model = ModelFolder(tmp_path, "identity")
    stages = Stages(sweep(tmp_path), model, model, Store(tmp_path), on_gpu=False)
    with pytest.raises(DataError, match="8"):
        carry_out(TRIAL, stages)


def test_failure_has_one_line_and_the_full_traceback() -> None:
    record = failure(TRIAL, TrainingError("the loss is nan at step 7; lower finetune.learning_rate\nmore"))
    assert record.error == "the loss is nan at step 7; lower finetune.learning_rate"
    assert "TrainingError" in (record.traceback or "")
    remote = RuntimeError("worker said:\nTraceback ...\nvllm.EngineDeadError: the engine died\nRuntimeError: wrapped")
    assert failure(TRIAL, remote).error == "vllm.EngineDeadError: the engine died"
    assert failure(TRIAL, RuntimeError()).error == "RuntimeError: RuntimeError"


def test_lost_nodes_are_distinguished_from_failures() -> None:
    assert is_lost(ActorDiedError())
    assert is_lost(UnansweredError("the engines are gone"))
    assert is_lost(RayTaskError("f", "traceback", NodeDiedError("gone")).as_instanceof_cause())
    assert not is_lost(RayTaskError("f", "traceback", DataError("no rows")).as_instanceof_cause())
    assert not is_lost(TrainingError("the loss is nan at step 7"))


def test_only_finished_trials_with_the_same_settings_are_reused(tmp_path: Path) -> None:
    folder = RunFolder(sweep(tmp_path))
    assert folder.find(TRIAL) is None
    folder.keep(TrialRecord.of(TRIAL, "failed", error="out of memory"))
    assert folder.find(TRIAL) is None
    folder.keep(TrialRecord.of(TRIAL, "done", rates={"asr": rate(0.1)}))
    found = folder.find(TRIAL)
    assert found is not None and found.value("asr") == 0.1
    other = sweep(tmp_path, evaluate={"red_team": ["advbench"], "task": ["lab-telecom"]})
    assert RunFolder(other).find(TRIAL) is None
    more_trials = sweep(tmp_path, search={"trials": 99})
    assert RunFolder(more_trials).find(TRIAL) is not None


@pytest.mark.parametrize("text", ["", '{"status": "done", "con', "[]", "{}", "\\udc80"])
def test_unreadable_record_counts_as_not_done(tmp_path: Path, text: str) -> None:
    folder = RunFolder(sweep(tmp_path))
    folder.keep(TrialRecord.of(TRIAL, "done", rates={"asr": rate(0.1)}))
    folder.record_path(TRIAL).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert folder.find(TRIAL) is None
    assert len(trials_table(sweep(tmp_path), folder, [TRIAL])) <= 1
    folder.keep(TrialRecord.of(TRIAL, "done", rates={"asr": rate(0.2)}))
    assert folder.find(TRIAL) is not None


def test_unreadable_dataset_is_reported_with_its_key(tmp_path: Path) -> None:
    nowhere = sweep(tmp_path, evaluate={"red_team": ["lab-harm"], "task": [{"name": "teleqna", "path": "no/where"}]})
    with pytest.raises(DataError, match=r"evaluate\.task\.0: .*no/where"):
        check_data(nowhere)
    check_data(sweep(tmp_path))


def test_defenses_start_from_a_given_adapter(tmp_path: Path) -> None:
    name = "model.layers.0.self_attn.q_proj"
    update = Factors(torch.randn(4, 6), torch.randn(6, 4), 2.0)
    given = Adapter({name: update}, {"peft_type": "LORA", "target_modules": ["q_proj"]}, "given")
    given.save(tmp_path / "given")
    finetune = {"adapter": str(tmp_path / "given"), "lora": {"r": 4, "targets": ["q_proj"]}, "batch_size": 16}
    model = ModelFolder(tmp_path, "identity")
    stages = Stages(sweep(tmp_path, finetune=finetune, arms={}), model, model, Store(tmp_path), on_gpu=False)
    assert Adapter.load(stages.training.finetuned({}, seed=0)).digest() == given.digest()
    given_adapter(stages.sweep.finetune)
    with pytest.raises(ModelError, match=r"finetune\.adapter: .*rank 4 on q_proj"):
        given_adapter(sweep(tmp_path, finetune=finetune | {"lora": {"r": 2}}, arms={}).finetune)
    with pytest.raises(ModelError, match="nowhere"):
        given_adapter(sweep(tmp_path, finetune=finetune | {"adapter": "nowhere"}, arms={}).finetune)


def test_stopped_trials_count_as_finished_while_racing(tmp_path: Path) -> None:
    folder = RunFolder(sweep(tmp_path))
    folder.keep(TrialRecord.of(TRIAL, "stopped", reason="another is better"))
    assert folder.find(TRIAL) is not None
    assert RunFolder(sweep(tmp_path, search={"racing": False})).find(TRIAL) is None


def test_a_trial_that_stopped_early_is_not_finished_in_a_sweep_with_other_seeds(tmp_path: Path) -> None:
    for seeds, compared in ((1, None), (3, 3)):
        stopped = TrialRecord.of(TRIAL, "stopped", reason="another is better", compared_seeds=compared)
        RunFolder(sweep(tmp_path, seeds=seeds)).keep(stopped)
        found = {other: RunFolder(sweep(tmp_path, seeds=other)).find(TRIAL) is not None for other in (1, 2, 3)}
        assert found == {other: other == seeds for other in (1, 2, 3)}


@pytest.mark.parametrize("failing", [0, 1], ids=["fine-tune", "safe adapter"])
def test_failed_fine_tune_is_not_retrained_for_each_trial(tmp_path: Path, failing: int) -> None:
    folder = RunFolder(sweep(tmp_path))
    trial = Trial("merged", {}, (("safe_merge", {"lowest": 1, "weight": 0.7}),), seed=0)
    needed = fine_tunes_of(trial)[failing]
    folder.check_fine_tune(trial)
    folder.keep(TrialRecord.of(needed, "failed", error="the loss is nan at step 7"))
    with pytest.raises(TrainingError, match="its fine-tune failed: the loss is nan at step 7"):
        folder.check_fine_tune(trial)
    folder.keep(TrialRecord.of(needed, "done"))
    folder.check_fine_tune(trial)


@pytest.mark.parametrize("reason", ["12 of 30 questions got no answer", ""])
def test_a_trial_that_failed_on_every_try_gives_the_reason_of_its_last(tmp_path: Path, reason: str) -> None:
    folder = RunFolder(sweep(tmp_path))
    folder.keep(TrialRecord.of(TRIAL, "failed", error="the reason of an earlier run"))
    searcher = QueueSearcher(TrialQueue([TRIAL]), folder)
    searcher.suggest("first")
    if reason:
        folder.keep(failure(TRIAL, UnansweredError(reason)))
    searcher.on_trial_complete("first", error=True)
    record = folder.record(TRIAL)
    assert record is not None and record.error == (reason or LOST)
