"""Trains the lab's models from scratch: `safecomm lab build`. The package ships the results; see `shipped.py`."""

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from safecomm.data.lab.corpus import alignment_text, base_text, continuation_text
from safecomm.data.lab.datasets import telecom_examples
from safecomm.data.lab.guard import Judged, guard_text
from safecomm.data.lab.model import Shape, new_model, train_tokenizer
from safecomm.data.lab.train import Stage, encode, reproducibly, train
from safecomm.data.rows import Example
from safecomm.storage.store import digest, write_json

RECIPE = "recipe.json"
"""File next to the models that records how they were trained."""


@dataclass(frozen=True)
class Recipe:
    """Settings for training the models. The default takes four minutes on two cores with bfloat16 instructions."""

    shape: Shape = field(default_factory=Shape)
    base: Stage = field(default_factory=lambda: Stage(40_000, learning_rate=4e-3, batch_size=64, optimizer="muon"))
    continuation: Stage = field(default_factory=lambda: Stage(16_000, 2e-3, batch_size=64, optimizer="muon"))
    alignment: Stage = field(default_factory=lambda: Stage(8_000, 1.5e-3, batch_size=32, optimizer="adamw"))
    """Light, like a chat model's: with more examples or Muon, harmless fine-tuning hardly erodes the alignment."""
    guard: Stage = field(default_factory=lambda: Stage(4_800, 2e-3, batch_size=32, optimizer="adamw"))
    threads: int = 2
    """Fixed, because sums over a different number of threads round differently."""


@dataclass(frozen=True)
class Texts:
    """The models' training data."""

    base: list[Example]
    continuation: list[Example]
    alignment: list[Example]
    guard: list[Judged]

    @classmethod
    def of(cls, recipe: Recipe, seed: int) -> "Texts":
        """Returns a recipe's training data; the same seed gives the same data."""
        return cls(
            base_text(recipe.base.examples, seed),
            continuation_text(recipe.continuation.examples, seed),
            alignment_text(recipe.alignment.examples, seed),
            guard_text(recipe.guard.examples, seed),
        )

    @property
    def tokenizer(self) -> list[Example]:
        """The tokenizer's training data."""
        return self.base[:12_000] + self.alignment[:4_000] + telecom_examples()


def train_models(
    out: Path,
    seed: int = 0,
    report: Callable[[str], None] = print,
    recipe: Recipe | None = None,
    bf16: bool = False,
) -> dict[str, Path]:
    """Trains the lab's models into a folder, with a record of the recipe, the digest of its data and the seed.

    The models load in transformers and vLLM as float32. They are stored as float16 to halve the files; the differences
    between the models are far larger than the rounding. The same seed gives the same weights on machines with the same
    processor and package versions.

    Args:
        out: output folder for `base`, `aligned` and `guard`.
        seed: seed for the data, its order and the initial weights.
        report: called with progress lines.
        recipe: sizes and hyperparameters.
        bf16: compute matrix products in bfloat16, for processors with instructions for it.

    Returns:
        Model name -> folder.
    """
    recipe = recipe or Recipe()
    texts = Texts.of(recipe, seed)
    transformers_logging.disable_progress_bar()  # our own progress lines have more information
    with reproducibly(recipe.threads, seed):
        _train_all(out, texts, recipe, seed, report, bf16)
    write_json(
        out / RECIPE,
        recipe_record(texts, recipe, seed)
        | {"made_with": {"torch": torch.__version__, "products": "bfloat16" if bf16 else "float32"}},
    )
    return {name: out / name for name in ("base", "aligned", "guard")}


def recipe_record(texts: Texts, recipe: Recipe, seed: int) -> dict[str, Any]:
    """Returns everything that determines the models' weights, apart from the processor and package versions."""
    return {"seed": seed, "recipe": asdict(recipe), "text": digest(asdict(texts))}


def _train_all(out: Path, texts: Texts, recipe: Recipe, seed: int, report: Callable[[str], None], bf16: bool) -> None:
    tokenizer = train_tokenizer(texts.tokenizer, recipe.shape.vocabulary)
    model = new_model(recipe.shape, tokenizer)

    def stage(name: str, examples: list[Any], settings: Stage) -> None:
        order = random.Random(f"{name} {seed}").randrange(2**32)
        rows = encode(tokenizer, examples)
        train(model, rows, settings, order, lambda line: report(f"lab {name}: {line}"), bf16)

    stage("base", texts.base, recipe.base)
    stage("continuation", texts.continuation, recipe.continuation)
    base = {name: weight.clone() for name, weight in model.state_dict().items()}
    _save(model, tokenizer, out / "base")
    stage("alignment", texts.alignment, recipe.alignment)
    _save(model, tokenizer, out / "aligned")
    model.load_state_dict(base)  # the guard also starts from the base model
    stage("guard", texts.guard, recipe.guard)
    _save(model, tokenizer, out / "guard")


def _save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    file = folder / "model.safetensors"
    weights = {name: weight.to(torch.float16) for name, weight in load_file(file).items()}
    save_file(weights, file, {"format": "pt"})
