"""A model processes packed examples as if each were alone; otherwise packing is rejected."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from safecomm.errors import TrainingError
from safecomm.finetune.job import FinetuneJob
from safecomm.finetune.model import load_model
from safecomm.plan.shapes import FAMILIES
from safecomm.spec import Finetune

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "vocab_size": 50, "head_dim": 8}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def model(kind: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SIZES | HEADS | changes)).eval()


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_packed_example_is_processed_as_if_it_were_alone(kind: str) -> None:
    packed = model(kind, sliding_window=4)
    first, second = [5, 6, 7, 8, 9, 10, 11], [20, 21, 22, 23, 24, 25]
    row = {"input_ids": first + second, "labels": first + second, "seq_lengths": [len(first), len(second)]}
    batch = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)([row])
    assert batch["labels"][0, len(first)] == -100, "the end of an example does not tell the start of the next"
    with torch.no_grad():
        together = packed(**batch, use_cache=False).logits[0]
        alone = [packed(torch.tensor([ids]), use_cache=False).logits[0] for ids in (first, second)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["mamba", "bloom"])
def test_packing_is_rejected_for_models_in_which_examples_would_attend_to_each_other(kind: str, tmp_path: Path) -> None:
    model(kind).save_pretrained(tmp_path)
    section = Finetune.model_validate({"data": ["lab-telecom"], "packing": True})
    job = FinetuneJob.of(section, model=tmp_path, data=tmp_path, workers=1, seed=0)
    with pytest.raises(TrainingError, match=f"finetune.packing: models of type {kind} would let packed examples"):
        load_model(job, bf16=False, on_gpu=False)
