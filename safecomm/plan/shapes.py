"""The shape of a model, from its `config.json` alone: parameters, linear modules, bytes of the KV cache.

Those of well-known hub models are kept in `shapes.json`, so that a plan needs no access to the hub.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

from safecomm.errors import ModelError

HALF = 2
"""Bytes of a bf16 or fp16 number. vLLM serves every model in these, also one stored in fp32; what `dtype` a checkpoint
has makes a difference on disk alone."""
ATTENTION_INPUTS = ("q_proj", "k_proj", "v_proj")
MLP_INPUTS = ("gate_proj", "up_proj")


@dataclass(frozen=True)
class Family:
    """What the models of one `model_type` have in common and their `config.json` need not say."""

    qkv_bias: bool = False
    norms: int = 2
    """Layer norms a layer, each with a weight a hidden unit."""
    head_norms: bool = False
    """Whether queries and keys are normed, with a weight for each number of a head."""
    tied: bool = False
    """What a missing `tie_word_embeddings` means."""
    head_dim: int | None = None
    """What a missing `head_dim` means; hidden size / heads where None."""


FAMILIES = {
    "llama": Family(),
    "mistral": Family(),
    "qwen2": Family(qkv_bias=True),
    "qwen3": Family(head_norms=True, head_dim=128),
    "gemma": Family(tied=True, head_dim=256),
    "gemma2": Family(norms=4, tied=True, head_dim=256),
    "gemma3_text": Family(norms=4, head_norms=True, tied=True, head_dim=256),
}
"""Decoders of equal layers with gated MLPs, by `model_type`."""


@dataclass(frozen=True)
class ModelShape:
    """A decoder in numbers."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool
    """Whether the output head is the embedding."""
    layer_vectors: int
    """Parameters of a layer beside its matrices: norms and biases."""

    @classmethod
    def of(cls, config: dict[str, Any]) -> Self:
        """Returns the shape that a `config.json` describes.

        Raises:
            ModelError: for an architecture whose parameters are not known here (mixtures of experts, models of images,
                fused projections), quantized weights, and a configuration without one of the sizes.
        """
        family = _family(config)
        try:
            hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
            head_dim = int(config.get("head_dim") or family.head_dim or hidden // heads)
            bare = cls(
                hidden=hidden,
                layers=int(config["num_hidden_layers"]),
                heads=heads,
                kv_heads=int(config.get("num_key_value_heads") or heads),
                head_dim=head_dim,
                intermediate=int(config["intermediate_size"]),
                vocabulary=int(config["vocab_size"]),
                tied=bool(config.get("tie_word_embeddings", family.tied)),
                layer_vectors=family.norms * hidden + family.head_norms * 2 * head_dim,
            )
        except KeyError as error:
            raise ModelError(f"config.json has no {error.args[0]}") from error
        return cls(**vars(bare) | {"layer_vectors": bare.layer_vectors + _biases(bare, family, config)})

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        """Type -> (d_out, d_in) of a layer's linear modules."""
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
        """Parameters of the embedding; an output head of its own has as many."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters; exact."""
        layer = sum(d_out * d_in for d_out, d_in in self.linear.values()) + self.layer_vectors
        return self.layers * layer + (1 if self.tied else 2) * self.embedding + self.hidden

    def weight_bytes(self, each: int = HALF) -> int:
        """Bytes of the weights, at `each` bytes a parameter."""
        return each * self.parameters

    @property
    def kv_bytes(self) -> int:
        """Bytes of the KV cache for one token in 16 bits; an upper bound where layers look at a sliding window."""
        return 2 * self.layers * self.kv_heads * self.head_dim * HALF

    def modules(self, targets: list[str]) -> dict[str, tuple[int, int]]:
        """Returns the linear modules of a layer that an adapter's targets name.

        Raises:
            ModelError: when a target names none of them.
        """
        names = [target.rpartition(".")[-1] for target in targets]
        if missing := sorted(set(names) - set(self.linear)):
            raise ModelError(
                f"no memory is known for adapters on {', '.join(missing)}; known: {', '.join(self.linear)}"
            )
        return {name: self.linear[name] for name in names}

    def adapter_parameters(self, rank: int, targets: list[str]) -> int:
        """Parameters of a LoRA of this rank on these modules of every layer: r (d_in + d_out) each."""
        return self.layers * rank * sum(d_out + d_in for d_out, d_in in self.modules(targets).values())


def find_shape(reference: str) -> ModelShape:
    """Returns the shape of a model without asking the hub: from its folder, `shapes.json`, or the hub's cache.

    Args:
        reference: a folder or a hub id.

    Raises:
        ModelError: when none of these has its configuration, or it is of no known architecture. A plan can do without.
    """
    folder = Path(reference).expanduser()
    config = _read(folder / "config.json") if folder.is_dir() else _known().get(reference) or _cached(reference)
    try:
        return ModelShape.of(config)
    except ModelError as error:
        raise ModelError(f"model {reference}: {error}") from error


def _family(config: dict[str, Any]) -> Family:
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise ModelError(f"the sizes of a model of type {kind} are not known; known: {', '.join(FAMILIES)}")
    if config.get("quantization_config"):
        raise ModelError("its weights are quantized, and config.json does not tell their size")
    return FAMILIES[kind]


def _biases(shape: ModelShape, family: Family, config: dict[str, Any]) -> int:
    """Parameters of a layer's biases: `attention_bias` adds them to all four projections, `mlp_bias` to the MLP's."""
    attention, mlp = config.get("attention_bias", False), config.get("mlp_bias", False)
    has = dict.fromkeys(ATTENTION_INPUTS, family.qkv_bias or attention) | {"o_proj": attention}
    return sum(d_out for name, (d_out, _) in shape.linear.items() if has.get(name, mlp))


@cache
def _known() -> dict[str, dict[str, Any]]:
    entries = json.loads(files("safecomm.plan").joinpath("shapes.json").read_text(encoding="utf-8"))
    return {model: entry["config"] for entry in entries for model in entry["models"]}


def _cached(reference: str) -> dict[str, Any]:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        path = try_to_load_from_cache(reference, "config.json")
    except HFValidationError:
        path = None
    if not isinstance(path, str):
        raise ModelError(f"model {reference}: its config.json is neither in a folder nor in the hub's cache")
    return _read(Path(path))


def _read(path: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ModelError(f"{path} can't be read: {error}") from error
    return config
