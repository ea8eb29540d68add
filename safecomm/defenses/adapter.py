"""A LoRA adapter in memory: the content of a PEFT folder, with every module's scaling resolved."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import pad

from safecomm.defenses.threads import one_thread
from safecomm.defenses.weights import DTYPES, in_layer_order, open_safetensors
from safecomm.errors import ModelError
from safecomm.storage.model_files import read_object
from safecomm.storage.names import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from safecomm.storage.time_limit import time_limit

PATTERN_SECONDS = 2.0
PREFIX = "base_model.model."
UNSUPPORTED = {
    "use_dora": "DoRA",
    "lora_bias": "lora_bias",
    "modules_to_save": "modules_to_save",
    "trainable_token_indices": "trainable_token_indices",
    "target_parameters": "target_parameters",
    "layer_replication": "layer_replication",
    "alora_invocation_tokens": "aLoRA",
    "use_qalora": "QA-LoRA",
    "use_bdlora": "block-diagonal LoRA",
    "kasa_config": "KaSA",
}
# With these initializations, loading the adapter changes the model's weights, so B A is not the whole update.
REWRITING = ("pissa", "corda", "olora", "loftq", "lora_ga")


class Factors(NamedTuple):
    """The update of one module, dW = scaling * B @ A."""

    A: Tensor
    """r x d_in."""
    B: Tensor
    """d_out x r."""
    scaling: float
    """alpha / r, or alpha / sqrt(r) for rsLoRA."""

    @property
    def shape(self) -> tuple[int, int]:
        """d_out x d_in."""
        return self.B.shape[0], self.A.shape[1]


@dataclass(frozen=True, eq=False)
class Adapter:
    """The updates of one LoRA adapter. It is immutable; a defense returns a new one."""

    modules: Mapping[str, Factors]
    """Module name in the checkpoint -> update, in layer order."""
    config: Mapping[str, Any]
    """The PEFT configuration; its rank and scaling are ignored in favour of `modules`."""
    source: str
    """The adapter's origin, for messages."""

    @property
    def transposed(self) -> bool:
        """Whether the model stores the weights as d_in x d_out (`fan_in_fan_out`)."""
        return bool(self.config.get("fan_in_fan_out"))

    @classmethod
    @one_thread()
    def load(cls, folder: str | Path) -> "Adapter":
        """Reads a PEFT LoRA folder.

        Raises:
            ModelError: if the folder is missing or broken, or the adapter is not a plain LoRA on linear modules.
        """
        folder = Path(folder)
        config = read_object(folder / ADAPTER_CONFIG)
        _refuse_other_kinds(folder, config)
        if not (folder / ADAPTER_WEIGHTS).exists() and (folder / "adapter_model.bin").exists():
            raise ModelError(
                f"{folder}: has pickled weights (adapter_model.bin), which are not loaded because a pickle can run "
                "code; convert them with PeftModel.from_pretrained(MODEL, FOLDER).save_pretrained(NEW_FOLDER)"
            )
        file = open_safetensors(folder / ADAPTER_WEIGHTS)
        tensors = {key: _factor(folder, file, key) for key in file.keys()}  # noqa: SIM118, a safe_open handle is not a mapping
        pairs = _paired(folder, tensors)
        try:
            with time_limit(PATTERN_SECONDS, "matching rank_pattern and alpha_pattern"):
                scalings = {name: _scaling(config, name, A.shape[0]) for name, (A, _) in pairs.items()}
        except (ValueError, re.error) as error:
            raise ModelError(f"{folder / ADAPTER_CONFIG}: {error}; save the adapter again") from error
        return cls({name: Factors(A, B, scalings[name]) for name, (A, B) in pairs.items()}, config, str(folder))

    @one_thread()
    def save(self, folder: Path) -> None:
        """Writes a PEFT folder with the same rank and scaling for all modules, because vLLM supports only that.

        Args:
            folder: created if it does not exist.

        Raises:
            ModelError: if the adapter is empty or has non-finite values.
        """
        self.check()
        modules = _uniform(self.modules)
        first = next(iter(modules.values()))
        rank = first.A.shape[0]
        alpha = first.scaling * rank
        tensors = {f"{PREFIX}{name}.lora_A.weight": factors.A.contiguous() for name, factors in modules.items()}
        tensors |= {f"{PREFIX}{name}.lora_B.weight": factors.B.contiguous() for name, factors in modules.items()}
        scaling = {"r": rank, "lora_alpha": int(alpha) if alpha == int(alpha) else alpha, "use_rslora": False}
        config = dict(self.config) | scaling | {"rank_pattern": {}, "alpha_pattern": {}, "inference_mode": True}
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    def digest(self) -> str:
        """Returns a 16-digit hex hash of the weights and scaling, which saving and loading preserve."""
        return self._digest

    @one_thread()
    def check(self) -> None:
        """Raises a ModelError if the adapter is empty or has non-finite values."""
        if not self.modules:
            raise ModelError(f"{self.source}: has no LoRA weights; save the adapter again")
        for name, factors in self.modules.items():
            if not (factors.A.isfinite().all() and factors.B.isfinite().all() and math.isfinite(factors.scaling)):
                raise ModelError(
                    f"{self.source}: {name} has non-finite values; train the adapter again with a lower learning rate"
                )

    @one_thread()
    def check_trained(self) -> None:
        """Raises a ModelError if the adapter is empty, has non-finite values, or changes nothing."""
        self.check()
        if not any(factors.B.any() for factors in self.modules.values()):
            raise ModelError(f"{self.source}: every lora_B is zero, so the adapter changes nothing; train it first")

    @cached_property
    @one_thread()
    def _digest(self) -> str:
        hashed = hashlib.sha256()
        for name, factors in sorted(_uniform(self.modules).items()):
            # Nine digits, because saving stores alpha and not alpha / r, which can change the last bit.
            hashed.update(json.dumps([name, f"{factors.scaling:.9g}"]).encode())
            for tensor in (factors.A, factors.B):
                hashed.update(json.dumps([str(tensor.dtype), tensor.shape]).encode())
                hashed.update(tensor.contiguous().view(torch.uint8).numpy().data)
        return hashed.hexdigest()[:16]


def _refuse_other_kinds(folder: Path, config: Mapping[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise ModelError(f"{folder}: is a {config.get('peft_type')} adapter; use a LoRA adapter")
    used = [name for key, name in UNSUPPORTED.items() if config.get(key)]
    if config.get("bias", "none") != "none":
        used.append(f"bias={config['bias']}")
    if used:
        raise ModelError(
            f"{folder}: uses {', '.join(used)}, which realignment does not support; train a plain LoRA adapter"
        )
    initialization = str(config.get("init_lora_weights", True)).lower()
    if initialization.startswith(REWRITING):
        raise ModelError(
            f"{folder}: was initialized with {initialization}, which also changes the model's weights; save it again "
            "with path_initial_model_for_weight_conversion (PEFT), or train with init_lora_weights=true"
        )


def _factor(folder: Path, file: Any, key: str) -> Tensor:
    """Reads one factor. Others than these types would lose their digits or their scale in later steps."""
    stored = file.get_slice(key).get_dtype()
    if stored not in DTYPES:
        raise ModelError(f"{folder}: {key} is stored as {stored}; save the adapter in fp32, bf16 or fp16")
    tensor: Tensor = file.get_tensor(key)
    return tensor.clone()


def _paired(folder: Path, tensors: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Returns A and B of each module, in layer order."""
    sides: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, factor, rest = key.removeprefix(PREFIX).rpartition(".lora_")
        if "lora_embedding_" in key:
            raise ModelError(
                f"{folder}: adapts an embedding ({key}), which realignment does not support; train linear modules only"
            )
        if not factor or rest not in ("A.weight", "B.weight") or tensor.ndim != 2:
            raise ModelError(
                f"{folder}: has {key}, which is not a LoRA factor of a linear module; train a plain LoRA adapter"
            )
        sides.setdefault(name, {})[rest[0]] = tensor
    for name, side in sides.items():
        if set(side) != {"A", "B"}:
            raise ModelError(f"{folder}: {name} has lora_{min(side)} but not the other factor; save the adapter again")
        if 0 in (*side["A"].shape, *side["B"].shape):
            raise ModelError(f"{folder}: the factors of {name} are empty; save the adapter again")
        if side["A"].shape[0] != side["B"].shape[1]:
            raise ModelError(f"{folder}: the lora_A and lora_B of {name} have different ranks; save the adapter again")
    return {name: (sides[name]["A"], sides[name]["B"]) for name in in_layer_order(sides)}


def _scaling(config: Mapping[str, Any], name: str, rank: int) -> float:
    """Returns the factor by which PEFT multiplies a module's B A.

    Raises:
        ValueError: if the configuration does not state it.
    """
    stated, alpha = (
        _for_module(config, "rank_pattern", "r", name),
        _for_module(config, "alpha_pattern", "lora_alpha", name),
    )
    if stated != rank:
        raise ValueError(f"{name} has rank {rank}, but {ADAPTER_CONFIG} says {stated:g}")
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _for_module(config: Mapping[str, Any], patterns: str, default: str, name: str) -> float:
    """Returns the value of the first pattern that matches the end of a module's name, like PEFT, or the default."""
    pattern = config.get(patterns) or {}
    if not isinstance(pattern, dict):
        raise ValueError(f"{patterns} must map names of modules to numbers")
    value = next((value for key, value in pattern.items() if re.match(rf"(.*\.)?({key})$", name)), config.get(default))
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        raise ValueError(f"r and lora_alpha must be numbers, also in {patterns}, not {value!r:.60}")
    return float(value)


def _uniform(modules: Mapping[str, Factors]) -> Mapping[str, Factors]:
    """Returns the same updates with one rank and one scaling: pads the rank with zeros and moves the scaling into B."""
    if len({(factors.A.shape[0], factors.scaling) for factors in modules.values()}) <= 1:
        return modules
    rank = max(factors.A.shape[0] for factors in modules.values())
    return {name: _padded(factors, rank) for name, factors in modules.items()}


def _padded(factors: Factors, rank: int) -> Factors:
    missing = rank - factors.A.shape[0]
    scaled = factors.B * factors.scaling
    return Factors(pad(factors.A, (0, 0, 0, missing)), pad(scaled, (0, missing)), 1.0)
