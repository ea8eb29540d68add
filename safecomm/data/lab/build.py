"""Trains the lab's models from nothing: `safecomm lab build`. The package ships what it made; see `shipped.py`."""

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
"""Beside the models: what they were made by."""


@dataclass(frozen=True)
class Recipe:
    """How the models are made. The default takes four minutes on two cores with bfloat16 instructions."""

    shape: Shape = field(default_factory=Shape)
    base: Stage = field(default_factory=lambda: Stage(40_000, learning_rate=4e-3, batch_size=64, optimizer="muon"))
    continuation: Stage = field(default_factory=lambda: Stage(16_000, 2e-3, batch_size=64, optimizer="muon"))
    alignment: Stage = field(default_factory=lambda: Stage(8_000, 1.5e-3, batch_size=32, optimizer="adamw"))
    """Light, as a chat model's: what more examples or Muon align, a fine-tune on harmless data hardly erodes."""
    guard: Stage = field(default_factory=lambda: Stage(4_800, 2e-3, batch_size=32, optimizer="adamw"))
    threads: int = 2
    """Fixed, since sums over another number of threads round differently."""


@dataclass(frozen=True)
class Texts:
    """What the models read."""

    base: list[Example]
    continuation: list[Example]
    alignment: list[Example]
    guard: list[Judged]

    @classmethod
    def of(cls, recipe: Recipe, seed: int) -> "Texts":
        """Returns a recipe's text, the same for the same seed."""
        return cls(
            base_text(recipe.base.examples, seed),
            continuation_text(recipe.continuation.examples, seed),
            alignment_text(recipe.alignment.examples, seed),
            guard_text(recipe.guard.examples, seed),
        )

    @property
    def tokenizer(self) -> list[Example]:
        """What the tokenizer is trained on."""
        return self.base[:12_000] + self.alignment[:4_000] + telecom_examples()


def train_models(
    out: Path,
    seed: int = 0,
    report: Callable[[str], None] = print,
    recipe: Recipe | None = None,
    bf16: bool = False,
) -> dict[str, Path]:
    """Trains the lab's models into a folder and writes their recipe, the digest of its text and the seed beside them.

    Each loads in transformers and vLLM, in float32. The files hold float16, which halves them; all differences between
    the models are far larger than its rounding. The same seed gives the same weights on machines with the same
    processor and versions.

    Args:
        out: gets the folders `base`, `aligned` and `guard`.
        seed: decides text, order and the random weights to start from.
        report: gets lines of progress.
        recipe: sizes and hyperparameters.
        bf16: compute products in bfloat16, for processors with instructions for it.

    Returns:
        The folder of each model by its name.
    """
    recipe = recipe or Recipe()
    texts = Texts.of(recipe, seed)
    transformers_logging.disable_progress_bar()  # ours tells more
    with reproducibly(recipe.threads, seed):
        _train_all(out, texts, recipe, seed, report, bf16)
    write_json(
        out / RECIPE,
        recipe_record(texts, recipe, seed)
        | {"made_with": {"torch": torch.__version__, "products": "bfloat16" if bf16 else "float32"}},
    )
    return {name: out / name for name in ("base", "aligned", "guard")}


def recipe_record(texts: Texts, recipe: Recipe, seed: int) -> dict[str, Any]:
    """Returns what decides the models' weights, apart from processor and versions."""
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
    model.load_state_dict(base)  # the guard starts from the base model too
    stage("guard", texts.guard, recipe.guard)
    _save(model, tokenizer, out / "guard")


def _save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    file = folder / "model.safetensors"
    weights = {name: weight.to(torch.float16) for name, weight in load_file(file).items()}
    save_file(weights, file, {"format": "pt"})
