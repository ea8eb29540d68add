"""A simulated fine-tune takes the planned time, and its adapter depends on what a real one would depend on."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from safecomm.data.lab.datasets import telecom_examples
from safecomm.defenses.adapter import Adapter
from safecomm.finetune.job import FinetuneJob
from safecomm.finetune.simulated import trained_tokens, write_simulated_adapter
from safecomm.serving.simulated_engine import update_norm
from safecomm.spec import Finetune
from safecomm.spec.simulation import Simulation


@pytest.fixture
def job(lab: dict[str, Path], tmp_path: Path) -> FinetuneJob:
    rows = [{"prompt": example.prompt, "response": example.response} for example in telecom_examples()[:20]]
    data = tmp_path / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = Finetune.model_validate({"data": ["lab-telecom"], "batch_size": 16, "epochs": 2})
    return FinetuneJob.of(section, model=lab["aligned"], data=data, workers=4, seed=0)


def adapter(job: FinetuneJob, out: Path) -> Adapter:
    write_simulated_adapter(job, Path(job.data), out)
    return Adapter.load(out)


def test_time_is_that_of_all_tokens_shared_by_the_ranks(job: FinetuneJob) -> None:
    rows = Path(job.data).read_text().splitlines()
    characters = [len(row["prompt"]) + len(row["response"]) for row in map(json.loads, rows)]
    tokens = 2 * sum(one // 4 for one in characters)
    assert trained_tokens(job, rows) == tokens
    assert trained_tokens(replace(job, max_length=5), rows) == 2 * 20 * 5
    speed = Simulation(trained_tokens_per_second=100, clock=10)
    assert speed.training_seconds(tokens, job.workers) == pytest.approx(tokens / 4000)


def test_adapter_is_trained_and_repeats_with_the_job_and_not_with_its_memory_settings(
    job: FinetuneJob, tmp_path: Path
) -> None:
    first = adapter(job, tmp_path / "first")
    first.check_trained()
    assert update_norm(str(tmp_path / "first")) == pytest.approx(1, rel=1e-4)
    assert adapter(replace(job, offload="cpu"), tmp_path / "again").digest() == first.digest()
    for number, changed in enumerate((replace(job, seed=1), replace(job, learning_rate=1e-5))):
        assert adapter(changed, tmp_path / str(number)).digest() != first.digest()
    Path(job.data).write_text(Path(job.data).read_text().replace("a", "b"))
    assert adapter(job, tmp_path / "other data").digest() != first.digest()
