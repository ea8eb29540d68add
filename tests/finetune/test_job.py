"""A fine-tune is named by what decides its result, and by nothing else."""

from pathlib import Path

from safecomm.finetune.job import FinetuneJob
from safecomm.finetune.zero import zero_config
from safecomm.spec import Finetune


def job(workers: int = 2, **fields: object) -> FinetuneJob:
    section = Finetune.model_validate({"data": ["lab-telecom"], **fields})
    return FinetuneJob.of(section, model=Path("model"), data=Path("data"), workers=workers, seed=0)


def test_the_batch_is_shared_by_workers_and_accumulated() -> None:
    assert (job(batch_size=32).micro_batch_size, job(batch_size=32).accumulation) == (16, 1)
    small = job(batch_size=32, micro_batch_size=4)
    assert (small.micro_batch_size, small.accumulation) == (4, 4)


def test_hyperparameters_change_the_name_but_places_and_checkpoints_do_not() -> None:
    assert job(learning_rate=1e-3).hyperparameters != job().hyperparameters
    assert job(lora={"r": 4}).hyperparameters != job().hyperparameters
    assert job(save_every=7).hyperparameters == job().hyperparameters
    assert job(lora={"targets": ["v_proj", "q_proj"]}).hyperparameters == job().hyperparameters


def test_only_zero_3_gathers_the_weights_that_are_saved() -> None:
    assert "stage3_gather_16bit_weights_on_model_save" in zero_config(3, bf16=False)["zero_optimization"]
    assert "stage3_gather_16bit_weights_on_model_save" not in zero_config(2, bf16=True)["zero_optimization"]
