"""The `finetune` section: the fine-tune that erodes safety, and the safe adapter."""

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from safecomm.defenses.space import LocalPath, Strict, different
from safecomm.spec.datasets import DatasetRef, SafetyData, TrainData


class Lora(Strict):
    """The LoRA adapter to train."""

    r: Annotated[int, Field(ge=1, le=512)] = 8
    """Rank."""
    alpha: Annotated[float, Field(gt=0, le=1e6)] = 16
    """The update is scaled by alpha / r."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before the adapter."""
    targets: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1), different("the module")] = [
        "q_proj",
        "v_proj",
    ]
    """The linear modules to adapt."""


class SafeAdapter(Strict):
    """The adapter tuned on safety data only, which SafeMERGE merges in."""

    data: SafetyData
    """Harmful requests with safe answers."""
    epochs: Annotated[float, Field(gt=0, le=1000)] = 10.0
    """Passes over the data."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-4
    """Peak learning rate."""


class Nvme(Strict):
    """Weights on a local disk."""

    nvme: LocalPath
    """A folder on each node's local disk, ideally a fast one."""


class Finetune(Strict):
    """The fine-tune that all arms except `original` start from."""

    data: list[TrainData] = []
    """Training sets of the task; they are concatenated."""
    adapter: LocalPath | None = None
    """Instead of `data`: the folder of an adapter on the aligned model, trained elsewhere or extracted with
    `safecomm extract-lora`; set `lora` to its rank and modules."""
    safety_data: SafetyData | None = None
    """The pool of safety examples for SafeInstruct."""
    safe_adapter: SafeAdapter | None = None
    """Training of SafeMERGE's safe adapter."""
    lora: Lora = Lora()
    """The adapter."""
    epochs: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Passes over the data."""
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    """Examples per optimizer step, over all workers."""
    micro_batch_size: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Examples per worker and forward pass; gradients are accumulated over the rest of the batch.

    By default the worker's whole share of the batch.
    """
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-4
    """Peak learning rate."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Learning rate schedule after the warm-up."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the steps used for the warm-up."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.0
    """AdamW's weight decay."""
    max_length: Annotated[int, Field(ge=8)] = 1024
    """Maximum tokens per example; longer examples are truncated."""
    packing: bool = False
    """Pack several whole examples into each row, up to `max_length` tokens. `batch_size` and `micro_batch_size` then
    count rows, so an epoch has fewer optimizer steps. Examples in a row do not attend to each other. The model sees the
    rows of a forward pass as one long sequence, so a small `micro_batch_size` is fastest."""
    zero: Literal[0, 1, 2, 3] = 0
    """DeepSpeed ZeRO stage: what is sharded over the workers (1 optimizer, 2 + gradients, 3 + weights)."""
    offload: Literal["none", "cpu"] | Nvme = "none"
    """Moves ZeRO's shards off the GPU: the optimizer state at stages 1 and 2, and also the weights at stage 3. `cpu`
    moves them to the node's memory, `{nvme: FOLDER}` moves the weights to its disk. Slower; the adapter is the same."""
    gradient_checkpointing: bool | None = None
    """Recompute each layer in the backward pass instead of storing its activations; by default on GPUs only."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """`auto`: bf16 if the hardware supports it."""
    quantize: Literal["none", "nf4"] = "none"
    """`nf4`: QLoRA (Dettmers et al., arXiv 2305.14314), which keeps the frozen weights in 4 bits during training. It
    needs GPUs and the package bitsandbytes. Defenses and engines use the unquantized weights."""
    save_every: Annotated[int, Field(ge=1)] = 500
    """Optimizer steps between checkpoints, from which an interrupted fine-tune resumes."""

    @field_validator("offload", mode="before")
    @classmethod
    def offload_has_a_known_form(cls, offload: object) -> object:
        """Rejects other forms with a single message."""
        folder = offload.get("nvme") if isinstance(offload, dict) and len(offload) == 1 else None
        if offload not in ("none", "cpu") and not isinstance(offload, Nvme) and not isinstance(folder, str):
            raise ValueError(f"must be none, cpu or {{nvme: FOLDER}}, not {offload}")
        return offload

    @field_validator("offload")
    @classmethod
    def zero_offloads(cls, offload: str | Nvme, info: ValidationInfo) -> str | Nvme:
        """Rejects offloading of anything that ZeRO does not shard."""
        stage = info.data.get("zero")
        if isinstance(offload, Nvme) and stage != 3:
            raise ValueError(f"nvme needs zero: 3, not zero: {stage}; set zero: 3 or offload: cpu")
        if offload != "none" and stage == 0:
            raise ValueError("zero: 0 can't offload; set zero: 1 or 2 (optimizer) or 3 (and weights), or offload: none")
        return offload

    @field_validator("quantize")
    @classmethod
    def quantized_weights_are_whole(cls, quantize: str, info: ValidationInfo) -> str:
        """Rejects 4-bit weights with ZeRO stage 3 or fp32."""
        if quantize != "none" and info.data.get("zero") == 3:
            raise ValueError(
                f"{quantize} weights can't be sharded while a model is loaded, so zero: 3 saves nothing; set zero: 0, "
                "1 or 2, or quantize: none"
            )
        if quantize != "none" and info.data.get("precision") == "fp32":
            raise ValueError(f"{quantize} needs bf16 computation; set precision: auto or quantize: none")
        return quantize

    @model_validator(mode="after")
    def trained_or_given(self) -> Self:
        """Checks that exactly one of `data` and `adapter` is set."""
        if bool(self.data) == (self.adapter is not None):
            raise ValueError("set either data to train on or adapter, the folder of a trained adapter")
        return self

    @property
    def datasets(self) -> dict[str, DatasetRef]:
        """The training sets by their keys in the sweep."""
        found = {f"finetune.data.{at}": ref for at, ref in enumerate(self.data)}
        if self.safety_data:
            found["finetune.safety_data"] = self.safety_data
        if self.safe_adapter:
            found["finetune.safe_adapter.data"] = self.safe_adapter.data
        return found

    def micro_batch(self, workers: int) -> int:
        """Returns the examples per worker and forward pass, with a number of workers."""
        return self.micro_batch_size or max(1, self.batch_size // workers)
