"""The models, adapters and training data of the self-test, created on the node under test without downloads."""

import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safecomm.errors import StorageError
from safecomm.selftest.sizes import TARGETS, Shape, Sizes
from safecomm.storage.names import TRAIN_DATA

GIB = 1 << 30
TOKENS = 1536
"""The tokenizer's size; a model's vocabulary may be larger, as in real models."""
ALIGNMENT_RANK, ALIGNMENT_SHARE = 16, 0.2
"""The rank of aligned - base, and its norm relative to the base model's weight."""
ADAPTER_SHARE = 0.5
"""The norm of a random adapter's update, relative to the weight to which it is added."""
CHARACTERS_A_TOKEN = 8
"""More than any text of the lab has, so a text of this many characters per token fills an example."""


@dataclass(frozen=True)
class Files:
    """The paths in a node's scratch folder."""

    folder: Path

    @property
    def base(self) -> Path:
        """The base model, before alignment."""
        return self.folder / "base"

    @property
    def aligned(self) -> Path:
        """The aligned model, which is fine-tuned and evaluated."""
        return self.folder / "aligned"

    @property
    def guard(self) -> Path:
        """The guard model."""
        return self.folder / "guard"

    @property
    def data(self) -> Path:
        """The training data."""
        return self.folder / TRAIN_DATA

    @property
    def adapters(self) -> Path:
        """The folder with one subfolder per adapter."""
        return self.folder / "adapters"

    @property
    def safe(self) -> Path:
        """The safe adapter of SafeMERGE."""
        return self.adapters / "safe"

    @property
    def tuned(self) -> Path:
        """The fine-tuned adapter."""
        return self.adapters / "tuned"

    @property
    def merged(self) -> Path:
        """The fine-tuned adapter after SafeMERGE."""
        return self.adapters / "merged"

    @property
    def subjects(self) -> dict[str, Path | None]:
        """Name -> adapter, of the bare model and all adapters that exist so far."""
        folders = sorted(path.parent for path in self.adapters.glob("*/adapter_config.json"))
        return {"the bare model": None, **{f"adapter {folder.name}": folder for folder in folders}}


def make_models(files: Files, sizes: Sizes) -> None:
    """Creates the models, three random adapters (one of them the safe adapter) and the training data.

    Raises:
        StorageError: if this node can't access the folder, or its disk is too full.
    """
    _check_room(files.folder, sizes.disk)
    if sizes.shape:
        make_random_pair(files, sizes.shape)
        files.guard.symlink_to(files.base.name)
    else:
        _copy_lab(files)
    for seed, folder in enumerate((files.safe, files.adapters / "second", files.adapters / "third")):
        make_adapter(files.aligned, sizes.rank, seed, folder)
    with files.data.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in _training_rows(sizes))


def make_random_pair(files: Files, shape: Shape) -> None:
    """Creates a Llama with random weights, and a second that differs by a low-rank matrix in every linear module.

    The weights are bf16. Special tokens and tokens that the tokenizer lacks have zero embeddings, which are tied to the
    output head: they are never generated, so every answer is text of the maximum length.
    """
    import torch
    from transformers import LlamaForCausalLM

    from safecomm.data.lab.datasets import telecom_examples
    from safecomm.data.lab.model import train_tokenizer

    tokenizer = train_tokenizer(telecom_examples()[:2000], TOKENS)
    tokenizer.model_max_length = shape.context
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = LlamaForCausalLM(_config(shape, tokenizer)).to(torch.bfloat16)
        model.model.embed_tokens.weight[len(tokenizer) :] = 0
        model.model.embed_tokens.weight[tokenizer.all_special_ids] = 0
        for folder in (files.base, files.aligned):
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            for weight in model.model.layers.parameters():
                if weight.ndim == 2:
                    weight += low_rank(weight, ALIGNMENT_RANK, ALIGNMENT_SHARE)


def make_adapter(model: Path, rank: int, seed: int, folder: Path) -> None:
    """Writes a random adapter that changes a model's answers."""
    import torch

    from safecomm.defenses.adapter import Adapter, Factors
    from safecomm.defenses.weights import Weights

    def factors(weight: torch.Tensor) -> Factors:
        d_out, d_in = weight.shape
        A = torch.randn(rank, d_in, generator=generator) / d_in**0.5
        B = torch.randn(d_out, rank, generator=generator)
        norm = torch.linalg.matrix_norm(weight.float())
        return Factors(A, ADAPTER_SHARE * norm / (d_out * rank) ** 0.5 * B, 1.0)

    generator, weights = torch.Generator().manual_seed(seed), Weights(model)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(model),
        "target_modules": list(TARGETS),
    }
    modules = {name: factors(weights.tensor(name)) for name in weights.modules(TARGETS)}
    Adapter(modules, config, str(folder)).save(folder)


def low_rank(like: Any, rank: int, share: float) -> Any:
    """Returns a random matrix of the given rank, with the shape of `like` and `share` times its norm."""
    import torch

    d_out, d_in = like.shape
    change = torch.randn(d_out, rank) @ torch.randn(rank, d_in)
    return (share * torch.linalg.matrix_norm(like.float()) / torch.linalg.matrix_norm(change) * change).to(like.dtype)


def _check_room(folder: Path, needed: int) -> None:
    if not folder.is_dir():
        raise StorageError(
            f"{folder.parent}: not accessible on this node; set --storage to a folder on a disk that all nodes share"
        )
    if (free := shutil.disk_usage(folder).free) < needed:
        raise StorageError(
            f"{folder.parent}: {free / GIB:.1f} GiB free, {needed / GIB:.1f} GiB needed; set --storage to a folder on "
            "a larger disk"
        )


def _copy_lab(files: Files) -> None:
    """Copies the lab's models to the scratch folder, where every process of the test finds them."""
    from safecomm.serving.models import LAB, model_folder
    from safecomm.storage.store import Store

    for folder in (files.base, files.aligned, files.guard):
        shutil.copytree(model_folder(LAB + folder.name, Store(files.folder / "store")), folder)


def _config(shape: Shape, tokenizer: Any) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def _training_rows(sizes: Sizes) -> Iterator[dict[str, str]]:
    """Yields questions with answers long enough that each example fills the training length."""
    from safecomm.data.lab.datasets import telecom_examples

    rng, examples = random.Random(0), telecom_examples()
    for example in examples[: sizes.steps * sizes.batch_size]:
        response = example.response
        while len(response) < CHARACTERS_A_TOKEN * sizes.train_length:
            response += f" {rng.choice(examples).response}"
        yield {"prompt": example.prompt, "response": response}
