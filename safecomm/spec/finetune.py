"""The `finetune` section: the fine-tune that erodes the safety, and the safe adapter."""

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from safecomm.defenses.space import LocalPath, Strict
from safecomm.spec.datasets import SafetyData, TrainData


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


class Nvme(Strict):
    """Weights on a local disk."""

    nvme: LocalPath
    """A folder of each node, on a disk of its own that is fast."""


class Finetune(Strict):
    """The fine-tune that every arm but `original` starts from."""

    data: list[TrainData] = []
    """Training sets of the task, concatenated."""
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
    packing: bool = False
    """Fill each row of a batch with whole examples, up to `max_length` tokens; `batch_size` and `micro_batch_size` then
    count rows, so that a pass over the data has fewer optimizer steps. No example sees another of its row. The rows of
    a forward pass are one long sequence to the model, so a small `micro_batch_size` is fastest."""
    zero: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO stage: what is sharded over the workers (1 optimizer, 2 + gradients, 3 + weights)."""
    offload: Literal["none", "cpu"] | Nvme = "none"
    """What ZeRO shards and a GPU need not hold all the time: the optimizer state at stages 1 and 2, the weights as well
    at 3. `cpu` puts it into the node's memory, `{nvme: FOLDER}` the weights on its disk. Slower; the same adapter."""
    gradient_checkpointing: bool | None = None
    """Compute each layer again in the backward pass instead of keeping its activations; by default on GPUs."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """`auto`: bf16 where there is hardware for it."""
    quantize: Literal["none", "nf4"] = "none"
    """`nf4`: QLoRA (Dettmers et al., arXiv 2305.14314), the frozen weights in 4 bits while the adapter is trained. It
    takes GPUs and the package bitsandbytes. Defenses and engines see the weights as they were."""
    save_every: Annotated[int, Field(ge=1)] = 500
    """Optimizer steps between checkpoints, from which an interrupted fine-tune goes on."""

    @field_validator("offload", mode="before")
    @classmethod
    def place_is_known(cls, offload: object) -> object:
        """Refuses in one line what is neither of the forms."""
        folder = offload.get("nvme") if isinstance(offload, dict) and len(offload) == 1 else None
        if offload not in ("none", "cpu") and not isinstance(offload, Nvme) and not isinstance(folder, str):
            raise ValueError(f"must be none, cpu or {{nvme: FOLDER}}, not {offload}")
        return offload

    @field_validator("offload")
    @classmethod
    def zero_offloads(cls, offload: str | Nvme, info: ValidationInfo) -> str | Nvme:
        """Refuses to put away what ZeRO does not shard."""
        stage = info.data.get("zero")
        if isinstance(offload, Nvme) and stage != 3:
            raise ValueError(f"weights go to a disk under zero: 3 alone, not {stage}; set zero: 3, or offload: cpu")
        if offload != "none" and stage == 0:
            raise ValueError("zero: 0 keeps everything on the GPU; set zero: 1 or 2 (optimizer) or 3 (weights as well)")
        return offload

    @field_validator("quantize")
    @classmethod
    def quantized_weights_are_whole(cls, quantize: str, info: ValidationInfo) -> str:
        """Refuses 4-bit weights where they would be sharded, or computed with in fp32."""
        if quantize != "none" and info.data.get("zero") == 3:
            raise ValueError(
                f"{quantize} weights are not sharded while a model is loaded, so zero: 3 saves nothing; set zero: 0, "
                "1 or 2, or quantize: none"
            )
        if quantize != "none" and info.data.get("precision") == "fp32":
            raise ValueError(f"{quantize} weights are computed with in bf16; set precision: auto, or quantize: none")
        return quantize

    @model_validator(mode="after")
    def trained_or_given(self) -> Self:
        """Refuses a fine-tune without data, and data beside an adapter that is trained already."""
        if bool(self.data) == (self.adapter is not None):
            raise ValueError("give either data to train on or an adapter that was trained already")
        return self

    def micro_batch(self, workers: int) -> int:
        """Examples per forward pass of each of so many workers."""
        return self.micro_batch_size or max(1, self.batch_size // workers)
