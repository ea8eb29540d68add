"""Model shapes from `config.json`: parameter counts, linear modules, KV cache size.

`shapes.json` has the configurations of well-known Hub models, so that planning needs no access to the Hub.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

from safecomm.errors import ModelError
from safecomm.storage.hub_cache import split_reference
from safecomm.storage.model_files import read_object, size_in

HALF = 2
"""Bytes of a bf16 or fp16 number. vLLM serves every model in 16 bits, even if its checkpoint is fp32."""
ATTENTION_INPUTS = ("q_proj", "k_proj", "v_proj")
MLP_INPUTS = ("gate_proj", "up_proj")


@dataclass(frozen=True)
class Family:
    """Properties that all models of a `model_type` share and their `config.json` may omit."""

    qkv_bias: bool = False
    norms: int = 2
    """Norms per layer, each with `hidden` weights."""
    head_norms: bool = False
    """Whether queries and keys are normalized per head, with `head_dim` weights each."""
    tied: bool = False
    """Default of `tie_word_embeddings`."""
    head_dim: int | None = None
    """Default of `head_dim`; None means hidden size / heads."""


FAMILIES = {
    "llama": Family(),
    "mistral": Family(),
    "qwen2": Family(qkv_bias=True),
    "qwen3": Family(head_norms=True, head_dim=128),
    "gemma": Family(tied=True, head_dim=256),
    "gemma2": Family(norms=4, tied=True, head_dim=256),
    "gemma3_text": Family(norms=4, head_norms=True, tied=True, head_dim=256),
}
"""Decoders with identical layers and gated MLPs, by `model_type`."""


@dataclass(frozen=True)
class ModelShape:
    """The dimensions of a decoder."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool
    """Whether input and output embeddings are tied."""
    layer_vectors: int
    """Parameters of a layer's norms and biases."""

    @classmethod
    def of(cls, config: dict[str, Any]) -> Self:
        """Returns the shape that a `config.json` describes.

        Raises:
            ModelError: if the architecture is unsupported (mixtures of experts, vision models, fused projections), the
                weights are quantized, or a size is missing or no positive number.
        """
        family = _family(config)
        hidden, heads = _needed(config, "hidden_size"), _needed(config, "num_attention_heads")
        head_dim = size_in(config, "head_dim", family.head_dim) or max(1, hidden // heads)
        bare = cls(
            hidden=hidden,
            layers=_needed(config, "num_hidden_layers"),
            heads=heads,
            kv_heads=size_in(config, "num_key_value_heads") or heads,
            head_dim=head_dim,
            intermediate=_needed(config, "intermediate_size"),
            vocabulary=_needed(config, "vocab_size"),
            tied=bool(config.get("tie_word_embeddings", family.tied)),
            layer_vectors=family.norms * hidden + family.head_norms * 2 * head_dim,
        )
        return cls(**vars(bare) | {"layer_vectors": bare.layer_vectors + _biases(bare, family, config)})

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        """Module type -> (d_out, d_in) of a layer's linear modules."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (queries, self.hidden),
            "k_proj": (keys, self.hidden),
            "v_proj": (keys, self.hidden),
            "o_proj": (self.hidden, queries),
            "gate_proj": (self.intermediate, self.hidden),
            "up_proj": (self.intermediate, self.hidden),
            "down_proj": (self.hidden, self.intermediate),
        }

    @property
    def embedding(self) -> int:
        """Parameters of the embedding; an untied output head has the same size."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """The exact number of parameters."""
        layer = sum(d_out * d_in for d_out, d_in in self.linear.values()) + self.layer_vectors
        return self.layers * layer + (1 if self.tied else 2) * self.embedding + self.hidden

    def weight_bytes(self, each: int = HALF) -> int:
        """Returns the size of the weights at `each` bytes per parameter."""
        return each * self.parameters

    @property
    def kv_bytes(self) -> int:
        """Bytes of KV cache per token in 16 bits; an upper bound for sliding-window attention."""
        return 2 * self.layers * self.kv_heads * self.head_dim * HALF

    def modules(self, targets: list[str]) -> dict[str, tuple[int, int]]:
        """Returns the linear modules of a layer that match an adapter's targets.

        Raises:
            ModelError: if a target matches none of them.
        """
        names = [target.rpartition(".")[-1] for target in targets]
        if missing := sorted(set(names) - set(self.linear)):
            raise ModelError(
                f"can't estimate memory for adapters on {', '.join(missing)}; known: {', '.join(self.linear)}"
            )
        return {name: self.linear[name] for name in names}

    def adapter_parameters(self, rank: int, targets: list[str]) -> int:
        """Returns the parameters of a LoRA adapter: r (d_in + d_out) per module."""
        return self.layers * rank * sum(d_out + d_in for d_out, d_in in self.modules(targets).values())


def find_shape(reference: str) -> ModelShape:
    """Returns a model's shape without network access: from its folder, `shapes.json` or the Hub's cache.

    Args:
        reference: a folder or a Hub id.

    Raises:
        ModelError: if none of these has its configuration, or the architecture is unknown.
    """
    config = find_config(reference)
    if config is None:
        raise ModelError(f"model {reference}: no config.json, neither in a local folder nor in the Hub cache")
    try:
        return ModelShape.of(config)
    except ModelError as error:
        raise ModelError(f"model {reference}: {error}") from error


def find_config(reference: str) -> dict[str, Any] | None:
    """Returns a model's configuration without network access; None if it is not available locally.

    Raises:
        ModelError: if it can't be read.
    """
    folder = Path(reference).expanduser()
    if folder.is_dir():
        return read_object(folder / "config.json")
    repository, revision = split_reference(reference)
    return _known().get(repository) or _cached(repository, revision)


def _family(config: dict[str, Any]) -> Family:
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ModelError(f"models of type {kind!s:.60} are not supported; supported: {', '.join(FAMILIES)}")
    if config.get("quantization_config"):
        raise ModelError("its weights are quantized, so config.json does not determine their size")
    return FAMILIES[kind]


def _needed(config: dict[str, Any], key: str) -> int:
    found = size_in(config, key)
    if found is None:
        raise ModelError(f"config.json has no {key}")
    return found


def _biases(shape: ModelShape, family: Family, config: dict[str, Any]) -> int:
    """Returns a layer's bias parameters: `attention_bias` adds them to all four projections, `mlp_bias` to the MLP."""
    attention, mlp = config.get("attention_bias", False), config.get("mlp_bias", False)
    has = dict.fromkeys(ATTENTION_INPUTS, family.qkv_bias or attention) | {"o_proj": attention}
    return sum(d_out for name, (d_out, _) in shape.linear.items() if has.get(name, mlp))


@cache
def _known() -> dict[str, dict[str, Any]]:
    entries = json.loads(files("safecomm.plan").joinpath("shapes.json").read_text(encoding="utf-8"))
    return {model: entry["config"] for entry in entries for model in entry["models"]}


def _cached(repository: str, revision: str | None) -> dict[str, Any] | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        path = try_to_load_from_cache(repository, "config.json", revision=revision)
    except HFValidationError:
        path = None
    return read_object(Path(path)) if isinstance(path, str) else None
