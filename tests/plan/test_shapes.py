"""Model shapes give exact parameter counts, without the Hub and without torch."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from safecomm.errors import ModelError
from safecomm.plan.shapes import ModelShape, find_shape

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 160,
    "vocab_size": 96,
}


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("meta-llama/Llama-2-7b-chat-hf", 6_738_415_616),
        ("meta-llama/Llama-2-13b-hf", 13_015_864_320),
        ("meta-llama/Llama-3.1-8B", 8_030_261_248),
        ("meta-llama/Meta-Llama-3-8B-Instruct", 8_030_261_248),
        ("meta-llama/Llama-Guard-3-8B", 8_030_261_248),
        ("meta-llama/Llama-3.1-70B-Instruct", 70_553_706_496),
        ("meta-llama/Llama-3.2-1B", 1_235_814_400),
        ("meta-llama/Llama-3.2-3B-Instruct", 3_212_749_824),
        ("Qwen/Qwen2-7B-Instruct", 7_615_616_512),
        ("mistralai/Mistral-7B-v0.3", 7_248_023_552),
        ("google/gemma-2b-it", 2_506_172_416),
    ],
)
def test_the_shapes_kept_here_have_the_published_number_of_parameters(model: str, parameters: int) -> None:
    assert find_shape(model).parameters == parameters


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": True},
        {"attention_bias": True, "mlp_bias": True},
        {"head_dim": 24, "num_key_value_heads": 4},
        {"model_type": "mistral"},
        {"model_type": "qwen2"},
        {"model_type": "qwen3", "head_dim": 32},
        {"model_type": "gemma", "head_dim": 32},
        {"model_type": "gemma2", "head_dim": 32},
        {"model_type": "gemma3_text", "head_dim": 32},
    ],
    ids=str,
)
def test_parameters_and_modules_are_those_of_the_model_that_transformers_builds(changes: dict[str, Any]) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = LLAMA | changes
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    shape = ModelShape.of(config)
    assert shape.parameters == model.num_parameters()
    layer = {name.rpartition(".")[-1]: module for name, module in model.model.layers[0].named_modules()}
    assert shape.linear == {name: tuple(layer[name].weight.shape) for name in shape.linear}


def test_an_adapter_counts_as_peft_makes_it() -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    targets = ["q_proj", "v_proj", "down_proj"]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**LLAMA))
        adapted = get_peft_model(model, LoraConfig(r=4, target_modules=targets))
    assert ModelShape.of(LLAMA).adapter_parameters(4, targets) == adapted.get_nb_trainable_parameters()[0]


def test_the_cache_of_a_llama_3_takes_128_kib_a_token() -> None:
    assert find_shape("meta-llama/Llama-3.1-8B").kv_bytes == 128 * 1024


def test_what_can_not_be_counted_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="type mixtral are not supported; supported: llama"):
        ModelShape.of(LLAMA | {"model_type": "mixtral"})
    with pytest.raises(ModelError, match="quantized"):
        ModelShape.of(LLAMA | {"quantization_config": {"bits": 4}})
    with pytest.raises(ModelError, match="has no vocab_size"):
        ModelShape.of({name: value for name, value in LLAMA.items() if name != "vocab_size"})
    with pytest.raises(ModelError, match=r"adapters on c_attn; known: q_proj"):
        ModelShape.of(LLAMA).adapter_parameters(8, ["c_attn"])
    (tmp_path / "config.json").write_text("{")
    for reference in (str(tmp_path), "nobody/nothing", "lab://aligned"):
        with pytest.raises(ModelError):
            find_shape(reference)


def test_a_folder_tells_its_own_shape(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert find_shape(str(tmp_path)) == ModelShape.of(LLAMA)


def test_memory_is_estimated_without_the_libraries_that_use_it() -> None:
    code = "import sys, safecomm.plan.fit; print({'torch', 'ray', 'vllm', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
