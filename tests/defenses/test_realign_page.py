"""The example of docs/realign.md runs unchanged."""

from pathlib import Path

import pytest
import torch
from markdown_pages import blocks
from transformers import LlamaConfig, LlamaForCausalLM

from safecomm.defenses import Adapter
from safecomm.defenses.adapter import Factors


def test_python_example_runs_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("Llama-3.1-8B", "Llama-3.1-8B-Instruct"):
        sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
        LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2)).save_pretrained(name)
    modules = [f"model.layers.{layer}.self_attn.{kind}_proj" for layer in range(2) for kind in "qv"]
    for name in ("telecom-lora", "safety-lora"):
        update = {module: Factors(torch.randn(2, 16), torch.randn(16, 2), 2.0) for module in modules}
        Adapter(update, {"peft_type": "LORA", "target_modules": ["q_proj", "v_proj"]}, name).save(tmp_path / name)
    (example,) = blocks("docs/realign.md", "python")
    exec(example, {})
    assert Adapter.load("merged").modules.keys() == set(modules)
    assert len(list(tmp_path.glob("projected-*/lineage.json"))) == len(modules) + 1
