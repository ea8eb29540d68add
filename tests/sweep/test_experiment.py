"""Ray Tune runs trials: each is recorded with its log, and a failed one does not affect others."""

import os
import signal
from pathlib import Path

import pytest
import torch
from rich.console import Console
from small_sweep import LEAST

from safecomm.defenses import Adapter
from safecomm.defenses.adapter import Factors
from safecomm.errors import StoppedError
from safecomm.search.arms import Trial
from safecomm.search.fine_tunes import TRAIN
from safecomm.search.queue import TrialQueue
from safecomm.search.record import TrialRecord
from safecomm.search.run_folder import RunFolder
from safecomm.serving.models import ModelFolder
from safecomm.spec import Sweep
from safecomm.storage.store import Store
from safecomm.sweep.experiment import experiment
from safecomm.sweep.stages import Stages

FINE_TUNE = Trial("finetune", {}, (), 0, TRAIN)
FAILING = Trial("dropped", {}, (("drop", {"lowest": 1}),), 0)


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """A sweep whose fine-tune is a given adapter, so that nothing is trained."""
    update = Factors(torch.randn(4, 6), torch.randn(6, 4), 2.0)
    config = {"peft_type": "LORA", "target_modules": ["q_proj"]}
    Adapter({"model.layers.0.self_attn.q_proj": update}, config, "given").save(tmp_path / "given")
    finetune = {"adapter": str(tmp_path / "given"), "lora": {"r": 4, "targets": ["q_proj"]}, "batch_size": 16}
    changes = {"finetune": finetune, "arms": {}, "storage": str(tmp_path / "runs"), "tracking": {"wandb": None}}
    return Sweep.model_validate(LEAST | changes)


class StoppedAtTheEnd(TrialQueue):
    """A queue whose user presses Ctrl-C just when its last trial has ended."""

    def finish(self, trial: Trial, record: TrialRecord) -> None:
        """Records the result, and sends the signal."""
        super().finish(trial, record)
        if self.is_done:
            os.kill(os.getpid(), signal.SIGINT)


def carried_out(sweep: Sweep, name: str, *trials: Trial, queue: type[TrialQueue] = TrialQueue) -> RunFolder:
    folder = RunFolder(sweep)
    nowhere = ModelFolder(Path(sweep.storage) / "no model", "identity")
    stages = Stages(sweep, nowhere, nowhere, Store.of(sweep.storage), on_gpu=False)
    experiment(name, queue(trials), len(trials), 2, stages, folder, Console(quiet=True))
    return folder


def test_ray_tune_is_not_started_without_trials(sweep: Sweep) -> None:
    assert not (carried_out(sweep, "train").path / "tune").exists()


@pytest.mark.ray
@pytest.mark.slow
def test_failed_trial_is_recorded_and_does_not_affect_others(sweep: Sweep, ray_session: None) -> None:
    before = signal.getsignal(signal.SIGINT)
    folder = carried_out(sweep, "both", FAILING, FINE_TUNE)
    assert signal.getsignal(signal.SIGINT) is before
    failed, done = folder.record(FAILING), folder.find(FINE_TUNE)
    assert failed and failed.status == "failed" and failed.error and "Traceback" in (failed.traceback or "")
    assert done and done.finetune and Store.of(sweep.storage).find("finetune", done.finetune)
    assert all(record.log and Path(record.log).is_file() for record in (failed, done))


@pytest.mark.ray
@pytest.mark.slow
def test_a_stop_at_the_end_of_an_experiment_is_not_lost(sweep: Sweep, ray_session: None) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(StoppedError, match="run the same command again to resume"):
        carried_out(sweep, "stopped", FINE_TUNE, queue=StoppedAtTheEnd)
    assert signal.getsignal(signal.SIGINT) is before
    folder = carried_out(sweep, "stopped", FINE_TUNE)
    assert folder.find(FINE_TUNE)
