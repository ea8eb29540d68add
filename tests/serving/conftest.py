"""Adapters and prompts for the engines."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from serving_helpers import TARGETS
from transformers import AutoModelForCausalLM

from safecomm.data.rows import Prompt


@pytest.fixture(scope="session")
def adapters(lab: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Four adapters, as many as vLLM holds at once; each changes what the lab's aligned model says in its own way."""
    folders = []
    for seed in (1, 2, 3, 4):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(lab["aligned"])
        adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=list(TARGETS)))
        with torch.no_grad():
            for name, weight in adapted.named_parameters():
                if "lora_B" in name:
                    weight.normal_(std=0.3)
        folder = tmp_path_factory.mktemp("adapter")
        adapted.save_pretrained(folder)
        folders.append(str(folder))
    return folders


@pytest.fixture(scope="session")
def prompts() -> tuple[Prompt, ...]:
    """A few prompts of every kind, enough for several chunks."""
    from safecomm.data.lab.datasets import borderline_prompts, harm_prompts, telecom_prompts

    return (*harm_prompts()[:40], *borderline_prompts()[:10], *telecom_prompts()[:20])
