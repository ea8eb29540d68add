"""Fine-tunes run on real Ray Train workers with DeepSpeed, save a correct adapter, and stop on a non-finite loss."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from safecomm.data.lab.datasets import telecom_examples
from safecomm.defenses.adapter import Adapter
from safecomm.errors import TrainingError
from safecomm.finetune.job import FinetuneJob
from safecomm.finetune.launch import finetune, training_metrics
from safecomm.finetune.worker import BELOW
from safecomm.spec import Finetune
from safecomm.storage.store import Store

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture
def job(lab: dict[str, Path], tmp_path: Path) -> FinetuneJob:
    data = tmp_path / "train.jsonl"
    rows = [{"prompt": example.prompt, "response": example.response} for example in telecom_examples()[:96]]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = Finetune.model_validate(
        {"data": ["lab-telecom"], "batch_size": 16, "learning_rate": 2e-3, "max_length": 128, "zero": 3, "epochs": 4}
    )
    return FinetuneJob.of(section, model=lab["aligned"], data=data, workers=2, seed=0)


@pytest.fixture
def run(ray_session: None, tmp_path: Path) -> Callable[[FinetuneJob, str], Path]:
    def finetuned(job: FinetuneJob, name: str) -> Path:
        out = tmp_path / name
        out.mkdir()
        finetune(job, out, Store(tmp_path / "store"), on_gpu=False)
        return out

    return finetuned


def test_zero_3_on_two_ranks_saves_the_same_adapter_as_unsharded_training(
    job: FinetuneJob, run: Callable[[FinetuneJob, str], Path]
) -> None:
    sharded, whole = run(job, "zero3"), run(replace(job, zero=0), "zero0")
    metrics = training_metrics(sharded)
    assert (metrics["ranks"], metrics["steps"]) == (2, 24)
    losses = [entry["loss"] for entry in metrics["curve"]]
    assert sum(losses[-6:]) < sum(losses[:6])
    first, second = Adapter.load(sharded), Adapter.load(whole)
    assert first.modules.keys() == second.modules.keys()
    for name in first.modules:
        delta, other = (
            factors.scaling * factors.B @ factors.A for factors in (first.modules[name], second.modules[name])
        )
        assert (delta - other).norm() <= 1e-3 * other.norm(), name


def test_further_training_goes_on_from_the_adapter_or_trains_a_new_one_on_top(
    job: FinetuneJob, run: Callable[[FinetuneJob, str], Path], adapters: list[str]
) -> None:
    further = replace(job, start=adapters[0], steps=2, kept_steps=(1, 2), schedule="constant")
    out = run(further, "further")
    assert training_metrics(out)["steps"] == 2
    start, once, last = Adapter.load(adapters[0]), Adapter.load(out / "1"), Adapter.load(out)
    assert Adapter.load(out / "2").digest() == last.digest()
    assert once.modules.keys() == last.modules.keys() == start.modules.keys()
    for name, factors in start.modules.items():
        first, second = ((one.modules[name].B - factors.B).norm() for one in (once, last))
        assert 0 < first < second < 0.1 * factors.B.norm(), name
    on_top = run(replace(further, on_top=True, kept_steps=()), "on-top")
    new = Adapter.load(on_top)
    assert all(factors.A.shape[0] == job.rank and factors.B.any() for factors in new.modules.values())
    before, after = (training_metrics(folder)["curve"][0]["loss"] for folder in (out, on_top))
    assert abs(before - after) < 1e-3, "a new adapter changes nothing yet, so the first loss is that of the one below"
    assert not (on_top / BELOW).exists()


def test_a_loss_that_is_not_finite_stops_the_fine_tune_with_the_step_in_the_error(
    job: FinetuneJob, run: Callable[[FinetuneJob, str], Path]
) -> None:
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at step \d+; lower finetune.learning_rate"):
        run(replace(job, learning_rate=1e30, zero=0), "broken")
