"""What one fine-tune is: model, data, adapter and hyperparameters, as its workers get them."""

from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from safecomm.spec import Finetune
from safecomm.storage.store import digest

PLACES = ("model", "data")
"""Named by what lies there."""
MEMORY = ("offload", "gradient_checkpointing", "save_every")
"""What moves memory and files about and leaves the result as it is."""


@dataclass(frozen=True)
class FinetuneJob:
    """One LoRA fine-tune, JSON-able so that it can travel to the workers and be hashed."""

    model: str
    """Folder of the weights that get the adapter."""
    data: str
    """A JSON Lines file of prompt and response."""
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

    @classmethod
    def of(cls, finetune: Finetune, *, model: Path, data: Path, workers: int, seed: int, **changes: Any) -> Self:
        """Returns the job that a sweep's `finetune` section describes, with `changes` to single fields."""
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
        """What decides the result beside the model and the data.

        Fields with a default are left out where they have it: they came later, and what was made before them keeps its
        name.
        """
        defaults = {field.name: field.default for field in fields(self) if field.default is not MISSING}
        values = {name: value for name, value in asdict(self).items() if name not in PLACES + MEMORY}
        return {name: value for name, value in values.items() if name not in defaults or value != defaults[name]}

    @property
    def name(self) -> str:
        """Tells it from all other fine-tunes."""
        return digest([self.model, self.data, self.hyperparameters])

    @property
    def swap(self) -> Path | None:
        """The folder on each node for weights that are put on a disk: its own, as others may run beside it."""
        return Path(self.offload["nvme"]) / f"finetune-{self.name}" if isinstance(self.offload, dict) else None

    @property
    def accumulation(self) -> int:
        """Forward passes per optimizer step."""
        return self.batch_size // (self.workers * self.micro_batch_size)
