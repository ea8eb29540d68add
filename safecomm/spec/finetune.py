"""The `finetune` section: the fine-tune that erodes the safety, and the safe adapter."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from safecomm.spec.datasets import SafetyData, TrainData
from safecomm.spec.space import LocalPath, Strict


class Lora(Strict):
    """The adapter that a fine-tune trains."""

    r: Annotated[int, Field(ge=1, le=512)] = 8
    """Rank."""
    alpha: Annotated[float, Field(gt=0)] = 16
    """The update is scaled by alpha / r."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before the adapter."""
    targets: Annotated[list[str], Field(min_length=1)] = ["q_proj", "v_proj"]
    """The linear modules that get an adapter."""


class SafeAdapter(Strict):
    """The adapter tuned on safety data alone, which SafeMERGE merges with."""

    data: SafetyData
    """Harmful requests with safe answers."""
    epochs: Annotated[float, Field(gt=0)] = 10.0
    """Passes over the data."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """Peak learning rate."""


class Finetune(Strict):
    """The telecom fine-tune that every arm but `original` starts from."""

    data: list[TrainData] = []
    """Telecom training sets, concatenated."""
    adapter: LocalPath | None = None
    """Instead of `data`: the folder of an adapter on the aligned model, trained elsewhere or made by
    `safecomm extract-lora`; `lora` must say its rank and modules."""
    safety_data: SafetyData | None = None
    """Where SafeInstruct draws its examples from."""
    safe_adapter: SafeAdapter | None = None
    """How SafeMERGE's safe adapter is trained."""
    lora: Lora = Lora()
    """The adapter."""
    epochs: Annotated[float, Field(gt=0)] = 1.0
    """Passes over the data."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Examples per optimizer step, over all workers."""
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None
    """Examples per forward pass of one worker; the rest of the batch is accumulated.

    By default all of the worker's share.
    """
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """Peak learning rate."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls after the warm-up."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the steps in which the learning rate rises."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's weight decay."""
    max_length: Annotated[int, Field(ge=8)] = 1024
    """Tokens per example; longer ones are cut."""
    zero: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO stage: what is sharded over the workers (1 optimizer, 2 + gradients, 3 + weights)."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """`auto`: bf16 where there is hardware for it."""
    save_every: Annotated[int, Field(ge=1)] = 500
    """Optimizer steps between checkpoints, from which an interrupted fine-tune goes on."""

    @model_validator(mode="after")
    def trained_or_given(self) -> Self:
        """Refuses a fine-tune without data, and data beside an adapter that is trained already."""
        if bool(self.data) == (self.adapter is not None):
            raise ValueError("give either data to train on or an adapter that was trained already")
        return self

    def micro_batch(self, workers: int) -> int:
        """Examples per forward pass of each of so many workers."""
        return self.micro_batch_size or max(1, self.batch_size // workers)
