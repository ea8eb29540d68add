"""A fine-tune's key depends on exactly the settings that determine its result."""

import json
import os
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import ray.train
import torch
from deepspeed.runtime.zero.config import get_zero_config
from transformers import AutoModelForCausalLM, AutoTokenizer

from safecomm.errors import TrainingError
from safecomm.finetune.deepspeed_internals import has_async_io
from safecomm.finetune.job import FinetuneJob
from safecomm.finetune.launch import _trainer
from safecomm.finetune.model import load_model
from safecomm.finetune.worker import _dataset, tokenizers
from safecomm.finetune.zero import deepspeed_config, zero_config
from safecomm.spec import Finetune
from safecomm.storage.store import digest


def job(workers: int = 2, **fields: object) -> FinetuneJob:
    section = Finetune.model_validate({"data": ["lab-telecom"], **fields})
    return FinetuneJob.of(section, model=Path("model"), data=Path("data"), workers=workers, seed=0)


def test_the_batch_is_divided_among_workers_and_accumulation_steps() -> None:
    assert (job(batch_size=32).micro_batch_size, job(batch_size=32).accumulation) == (16, 1)
    small = job(batch_size=32, micro_batch_size=4)
    assert (small.micro_batch_size, small.accumulation) == (4, 4)


def test_hyperparameters_change_the_key_but_paths_and_checkpoints_do_not() -> None:
    assert job(learning_rate=1e-3).hyperparameters != job().hyperparameters
    assert job(lora={"r": 4}).hyperparameters != job().hyperparameters
    assert job(save_every=7).hyperparameters == job().hyperparameters
    assert job(lora={"targets": ["v_proj", "q_proj"]}).hyperparameters == job().hyperparameters


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_offloading_does_not_change_the_key(stage: int) -> None:
    plain = job(zero=stage)
    assert job(zero=stage, offload="cpu").hyperparameters == plain.hyperparameters
    assert job(zero=stage, gradient_checkpointing=False).hyperparameters == plain.hyperparameters
    assert job(zero=3, offload={"nvme": "/nvme"}).hyperparameters == job(zero=3).hyperparameters


def test_packing_and_quantization_change_the_key_and_without_them_old_keys_are_kept() -> None:
    assert job(packing=True).hyperparameters == job().hyperparameters | {"packing": True}
    assert job(quantize="nf4").hyperparameters == job().hyperparameters | {"quantize": "nf4"}
    # The keys of fine-tunes from before either setting existed.
    assert digest(job().hyperparameters) == "d4cd4e03e2cb064b"


def test_the_templates_arguments_change_the_key_and_apply_to_every_example(
    lab: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "data").write_text('{"prompt": "How?", "response": "So."}\n')
    off = replace(job(), data=str(tmp_path / "data"), chat_template_kwargs={"enable_thinking": False})
    assert off.hyperparameters == job().hyperparameters | {"chat_template_kwargs": {"enable_thinking": False}}
    tokenizer = AutoTokenizer.from_pretrained(lab["aligned"])
    tokenizer.chat_template = "{{ '' if enable_thinking else 'no ' }}" + tokenizer.chat_template
    (quiet,), (row,) = _dataset(off, tokenizer), _dataset(replace(off, chat_template_kwargs=None), tokenizer)
    assert set(row) == {"input_ids", "completion_mask"} and len(quiet["input_ids"]) == len(row["input_ids"])
    on = replace(off, chat_template_kwargs={"enable_thinking": True})
    (thinking,) = _dataset(on, tokenizer)
    assert len(thinking["input_ids"]) < len(quiet["input_ids"])


def test_a_job_is_sent_to_its_workers_as_json() -> None:
    sent = job(zero=3, offload={"nvme": "/nvme"})
    assert FinetuneJob(**asdict(sent)) == sent
    assert json.loads(json.dumps(asdict(sent)))["offload"] == {"nvme": "/nvme"}


def test_concurrent_fine_tunes_offload_to_separate_folders() -> None:
    one, other = (job(zero=3, offload={"nvme": "/nvme"}, lora={"r": rank}).swap for rank in (8, 16))
    assert one and other and one != other
    assert one.parent == other.parent == Path("/nvme")
    assert job(zero=3, offload="cpu").swap is None


def test_zero_1_and_2_offload_the_optimizer_state_and_zero_3_the_weights_as_well() -> None:
    for stage in (1, 2, 3):
        zero = zero_config(stage, bf16=True, offload="cpu")["zero_optimization"]
        assert zero["offload_optimizer"] == {"device": "cpu"}
        assert zero.get("offload_param") == ({"device": "cpu"} if stage == 3 else None)


def test_buffers_for_weights_on_disk_hold_the_largest_shard() -> None:
    config = zero_config(3, bf16=True, offload={"nvme": "/nvme"}, largest_shard=1_000_001)
    theirs = get_zero_config(config)
    assert theirs.offload_param.device == "nvme"
    assert str(theirs.offload_param.nvme_path) == "/nvme"
    assert theirs.offload_param.buffer_size == 1_000_001
    assert theirs.offload_optimizer.device == "cpu"


@pytest.mark.skipif(has_async_io(), reason="libaio is there")
def test_weights_on_disk_without_libaio_are_rejected_with_the_name_of_the_setting() -> None:
    with pytest.raises(TrainingError, match=r"finetune\.offload: nvme needs DeepSpeed's async_io"):
        deepspeed_config(job(zero=3, offload={"nvme": "/nvme"}), bf16=True)


def test_4_bit_weights_without_a_gpu_are_rejected_with_the_name_of_the_setting() -> None:
    with pytest.raises(TrainingError, match=r"finetune\.quantize: nf4 needs GPUs with bf16 support"):
        load_model(job(quantize="nf4"), bf16=True, on_gpu=False)


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is there")
def test_4_bit_weights_without_bitsandbytes_are_rejected_with_the_name_of_the_package() -> None:
    with pytest.raises(TrainingError, match=r"finetune\.quantize: nf4 needs the package bitsandbytes"):
        load_model(job(quantize="nf4"), bf16=True, on_gpu=True)


def test_only_zero_3_gathers_the_weights_for_saving() -> None:
    assert "stage3_gather_16bit_weights_on_model_save" in zero_config(3, bf16=False)["zero_optimization"]
    assert "stage3_gather_16bit_weights_on_model_save" not in zero_config(2, bf16=True)["zero_optimization"]


@pytest.mark.parametrize(("stage", "device_map"), [(0, {"": 3}), (2, {"": 3}), (3, None)])
def test_a_rank_reads_the_whole_model_directly_into_its_gpu(
    stage: int, device_map: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda model, **options: options)
    assert load_model(job(zero=stage), bf16=True, on_gpu=True).get("device_map") == device_map


def test_ranks_wait_while_several_processes_tokenize_a_large_training_set(tmp_path: Path) -> None:
    scaling = ray.train.ScalingConfig(num_workers=2)
    trainer = _trainer({}, scaling, tmp_path, "run", [])
    assert trainer.backend_config.timeout_s >= 2 * 3600
    assert tokenizers(600_000) == min(16, os.cpu_count() or 1) and tokenizers(8_000) is None
