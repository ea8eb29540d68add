"""Builds the lab's two models, base and aligned, from nothing: `safecomm lab build`."""

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from safecomm.data.rows import Example
from safecomm.lab.corpus import alignment_text, base_text, continuation_text
from safecomm.lab.datasets import telecom_examples
from safecomm.lab.model import Shape, new_model, train_tokenizer
from safecomm.lab.train import Stage, encode, reproducibly, train
from safecomm.storage.store import Store, digest

VERSION = 1
"""Raised by whoever changes the code so that the same recipe and text give other weights."""


@dataclass(frozen=True)
class Recipe:
    """What the models are made by. The default takes about two and a half minutes of two cores."""

    shape: Shape = field(default_factory=Shape)
    base: Stage = field(default_factory=lambda: Stage(40_000, learning_rate=4e-3, batch_size=64, optimizer="muon"))
    continuation: Stage = field(default_factory=lambda: Stage(16_000, 2e-3, batch_size=64, optimizer="muon"))
    alignment: Stage = field(default_factory=lambda: Stage(8_000, 1.5e-3, batch_size=32, optimizer="adamw"))
    """Light, as a chat model's: what more examples or Muon align, a fine-tune on harmless data hardly erodes."""
    threads: int = 2
    """Fixed, since sums over another number of threads round differently."""


@dataclass(frozen=True)
class _Texts:
    """What the models read."""

    base: list[Example]
    continuation: list[Example]
    alignment: list[Example]
    tokenizer: list[Example]


def build_lab(
    store: Store, seed: int = 0, report: Callable[[str], None] = print, recipe: Recipe | None = None
) -> dict[str, Path]:
    """Returns the folders of the lab's models, `base` and `aligned`; trains them where the store lacks them.

    Both load in transformers and vLLM: float32 safetensors, the tokenizer with its chat template, the configurations.
    The same seed gives the same weights on one machine.
    """
    recipe = recipe or Recipe()
    texts = _texts(recipe, seed)
    inputs = {"version": VERSION, "seed": seed, "recipe": asdict(recipe), "text": digest(asdict(texts))}
    folder = store.obtain("lab", inputs, lambda half: _make(half, texts, recipe, seed, report))
    return {"base": folder / "base", "aligned": folder / "aligned"}


def _texts(recipe: Recipe, seed: int) -> _Texts:
    alignment = alignment_text(recipe.alignment.examples, seed)
    base = base_text(recipe.base.examples, seed)
    return _Texts(
        base=base,
        continuation=continuation_text(recipe.continuation.examples, seed),
        alignment=alignment,
        tokenizer=base[:12_000] + alignment[:4_000] + telecom_examples(),
    )


def _make(folder: Path, texts: _Texts, recipe: Recipe, seed: int, report: Callable[[str], None]) -> None:
    """Trains the models into a folder, with a number of threads and random numbers of its own."""
    transformers_logging.disable_progress_bar()  # ours tells more
    with reproducibly(recipe.threads, seed):
        _train_both(folder, texts, recipe, seed, report)


def _train_both(folder: Path, texts: _Texts, recipe: Recipe, seed: int, report: Callable[[str], None]) -> None:
    tokenizer = train_tokenizer(texts.tokenizer, recipe.shape.vocabulary)
    model = new_model(recipe.shape, tokenizer)

    def stage(name: str, examples: list[Example], settings: Stage) -> None:
        order = random.Random(f"{name} {seed}").randrange(2**32)
        train(model, encode(tokenizer, examples), settings, order, lambda line: report(f"lab {name}: {line}"))

    stage("base", texts.base, recipe.base)
    stage("continuation", texts.continuation, recipe.continuation)
    _save(model, tokenizer, folder / "base")
    stage("alignment", texts.alignment, recipe.alignment)
    _save(model, tokenizer, folder / "aligned")


def _save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
