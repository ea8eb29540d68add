"""The specification of one fine-tune: model, data, adapter and hyperparameters."""

from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from safecomm.spec import Finetune
from safecomm.storage.store import digest, local_copy

PLACES = ("model", "data", "start")
"""Path fields; their content identifies them."""
MEMORY = ("offload", "gradient_checkpointing", "save_every")
"""Fields that affect memory and files but not the result."""


@dataclass(frozen=True)
class FinetuneJob:
    """One LoRA fine-tune; all fields are JSON values, so it can be sent to workers and hashed."""

    model: str
    """Folder of the model to fine-tune."""
    data: str
    """A JSON Lines file with prompts and responses."""
    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...]
    epochs: float
    batch_size: int
    micro_batch_size: int
    learning_rate: float
    schedule: str
    warmup: float
    weight_decay: float
    max_length: int
    zero: int
    precision: str
    save_every: int
    workers: int
    seed: int
    packing: bool = False
    offload: str | dict[str, str] = "none"
    gradient_checkpointing: bool | None = None
    quantize: str = "none"
    losses: tuple[tuple[str, dict[str, Any], str], ...] = ()
    """Training defenses that change the loss: dotted name, settings and digest of the code."""
    chat_template_kwargs: dict[str, Any] | None = None
    """Arguments of the chat template."""
    start: str = ""
    """Folder of an adapter to train further; empty to start with a new one."""
    on_top: bool = False
    """Train a new adapter on top of `start`, which stays as it is, as if it had been merged into the model."""
    steps: int = 0
    """Optimizer steps, instead of `epochs`."""
    kept_steps: tuple[int, ...] = ()
    """Steps after which the adapter is also written, into a folder with that number."""

    @classmethod
    def of(cls, finetune: Finetune, *, model: Path, data: Path, workers: int, seed: int, **changes: Any) -> Self:
        """Returns the job for a sweep's `finetune` section, with individual fields overridden by `changes`."""
        lora = finetune.lora
        values = finetune.model_dump(include={field.name for field in fields(cls)})
        values |= {
            "model": str(model),
            "data": str(data),
            "rank": lora.r,
            "alpha": lora.alpha,
            "dropout": lora.dropout,
            "targets": tuple(sorted(lora.targets)),
            "micro_batch_size": finetune.micro_batch(workers),
            "workers": workers,
            "seed": seed,
        }
        values.update(data=str(data), **changes)
        return cls(**values)

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The fields that determine the result, apart from model and data.

        Fields at their default value are omitted: they were added later, and existing fine-tunes must keep their keys.
        """
        defaults = {field.name: field.default for field in fields(self) if field.default is not MISSING}
        values = {name: value for name, value in asdict(self).items() if name not in PLACES + MEMORY}
        return {name: value for name, value in values.items() if name not in defaults or value != defaults[name]}

    def on_this_node(self) -> Self:
        """Returns the job with this node's copies of the model, the data and the adapter to start from."""
        places: dict[str, Any] = {name: str(local_copy(Path(path))) for name in PLACES if (path := getattr(self, name))}
        return replace(self, **places)

    @property
    def name(self) -> str:
        """A unique id of the fine-tune."""
        return digest([self.model, self.data, *([self.start] if self.start else []), self.hyperparameters])

    @property
    def swap(self) -> Path | None:
        """The folder on each node for weights offloaded to disk, unique to this fine-tune."""
        return Path(self.offload["nvme"]) / f"finetune-{self.name}" if isinstance(self.offload, dict) else None

    @property
    def accumulation(self) -> int:
        """Forward passes per optimizer step."""
        return self.batch_size // (self.workers * self.micro_batch_size)
