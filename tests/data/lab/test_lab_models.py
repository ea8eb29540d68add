"""The lab's models: chat template, training side effects, reproducibility, and the shipped files."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from safecomm.data.lab.build import RECIPE, Recipe, Texts, recipe_record, train_models
from safecomm.data.lab.corpus import base_text
from safecomm.data.lab.datasets import harm_prompts, telecom_examples, telecom_prompts
from safecomm.data.lab.model import Shape, new_model, train_tokenizer
from safecomm.data.lab.shipped import MODELS, NAMES, shipped_model
from safecomm.data.lab.train import IGNORED, Stage, encode, train
from safecomm.data.rows import Example
from safecomm.storage.store import Store

TINY = Recipe(
    shape=Shape(vocabulary=512, hidden=32, layers=2, heads=2, mlp=64),
    base=Stage(400, learning_rate=4e-3, batch_size=32, optimizer="muon"),
    continuation=Stage(100, learning_rate=2e-3, batch_size=32, optimizer="muon"),
    alignment=Stage(100, learning_rate=2e-3, batch_size=32, optimizer="adamw"),
    guard=Stage(100, learning_rate=2e-3, batch_size=32, optimizer="adamw"),
)


def silent(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(base_text(2000, seed=0) + telecom_examples()[:2000], vocabulary=1536)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> dict[str, Path]:
    return train_models(tmp_path_factory.mktemp("tiny"), report=silent, recipe=TINY)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_tokenizer_round_trips_any_text(tokenizer):
    texts = [prompt.text for prompt in telecom_prompts()] + ["Sure, here is how to jam ü 5G: first, ...\n\ttab  spaces"]
    for text in texts:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_tokenizer_splits_digits(tokenizer):
    assert tokenizer.tokenize("t3510")[-4:] == ["3", "5", "1", "0"]


def test_training_and_inference_see_the_same_prompt(tokenizer):
    """A template that renders a prompt in training otherwise than in generation would measure another model."""
    for example in [*base_text(20, seed=3), Example("hi", "there.")]:
        [row] = encode(tokenizer, [example])
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": example.prompt}], add_generation_prompt=True, return_dict=False
        )
        answer = tokenizer(example.response + "</s>", add_special_tokens=False)["input_ids"]
        assert row.tokens == prompt + answer
        assert row.labels == [IGNORED] * len(prompt) + answer
        rendered = tokenizer.apply_chat_template(example.messages(), tokenize=False)
        assert rendered == f"<s><|user|>{example.prompt}<|assistant|>{example.response}</s>"


def test_special_tokens_are_single(tokenizer):
    rendered = "<s><|system|><|user|><|assistant|></s>"
    assert tokenizer(rendered)["input_ids"] == [1, 3, 4, 5, 2]


def test_too_small_vocabulary_is_rejected():
    with pytest.raises(ValueError, match="at least 262"):
        train_tokenizer(base_text(10, seed=0), vocabulary=200)


def test_a_build_loads_in_transformers_and_answers(tiny):
    for folder in tiny.values():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert model.dtype == torch.float32 and model.config.vocab_size == len(tokenizer) == 512
        settings = GenerationConfig.from_pretrained(folder)
        assert (settings.pad_token_id, settings.bos_token_id, settings.eos_token_id) == (0, 1, 2)
        chats = [[{"role": "user", "content": prompt.text}] for prompt in harm_prompts()[:3]]
        batch = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, return_dict=True, return_tensors="pt", padding=True
        )
        assert model.generate(**batch, max_new_tokens=4).shape[0] == 3


def test_a_loaded_tokenizer_equals_the_trained_one(tiny):
    """transformers maps Llama models to a tokenizer of its own; the saved folder must not fall for that."""
    loaded = AutoTokenizer.from_pretrained(tiny["aligned"])
    trained = Tokenizer.from_file(str(tiny["aligned"] / "tokenizer.json"))
    for prompt in telecom_prompts()[::40]:
        text = f"<s><|user|>{prompt.text}<|assistant|>"
        assert loaded(text)["input_ids"] == trained.encode(text).ids


def test_alignment_changes_the_matrices_that_defenses_compare(tiny):
    base, aligned = weights(tiny["base"]), weights(tiny["aligned"])
    assert base.keys() == aligned.keys()
    for name, weight in base.items():
        if name.endswith("proj.weight"):
            assert not torch.equal(weight, aligned[name]), name


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tiny, tmp_path):
    torch.manual_seed(99)  # whatever state the caller's generator is in
    again = train_models(tmp_path / "again", seed=0, report=silent, recipe=TINY)
    other = train_models(tmp_path / "other", seed=1, report=silent, recipe=TINY)
    for model in NAMES:
        for name, weight in weights(tiny[model]).items():
            assert torch.equal(weight, weights(again[model])[name]), (model, name)
    assert not torch.equal(weights(tiny["base"])["model.norm.weight"], weights(other["base"])["model.norm.weight"])


def test_build_restores_threads_and_random_state(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    train_models(tmp_path, seed=2, report=silent, recipe=TINY)
    assert torch.equal(torch.rand(3), expected) and torch.get_num_threads() == threads


def test_progress_shows_stage_loss_and_time_left(tmp_path):
    lines: list[str] = []
    train_models(tmp_path, seed=3, report=lines.append, recipe=TINY)
    stages = dict.fromkeys(line.split(":")[0] for line in lines)  # on a slow machine a stage reports more than once
    assert list(stages) == ["lab base", "lab continuation", "lab alignment", "lab guard"]
    assert all("loss" in line and "s left" in line for line in lines)


def test_training_lowers_the_loss(tokenizer):
    torch.manual_seed(0)
    model = new_model(Shape(hidden=32, layers=1, heads=1, mlp=64), tokenizer)
    rows = encode(tokenizer, base_text(200, seed=0))
    losses: list[float] = []

    def keep(line: str) -> None:
        losses.append(float(line.split("loss ")[1].split(",")[0]))

    for _ in range(3):
        train(model, rows, Stage(200, learning_rate=4e-3, batch_size=32, optimizer="muon"), seed=0, report=keep)
    assert losses[2] < losses[0] - 0.3


def test_shipped_models_match_the_recipe():
    """A change to the recipe, a word or the seed requires rebuilding the models."""
    shipped = json.loads((MODELS / RECIPE).read_text())
    shipped.pop("made_with")
    recipe = Recipe()
    assert shipped == json.loads(json.dumps(recipe_record(Texts.of(recipe, 0), recipe, 0)))


def test_store_copies_a_shipped_model_once(tmp_path):
    store = Store(tmp_path)
    for name in NAMES:
        folder = shipped_model(name, store)
        assert folder.is_relative_to(tmp_path) and folder == shipped_model(name, store)
        assert torch.equal(weights(folder)["model.norm.weight"], weights(MODELS / name)["model.norm.weight"])
        assert AutoModelForCausalLM.from_pretrained(folder).dtype == torch.float32
