"""Estimates the memory of a fine-tune per GPU and per node, from the model's shape and the sweep.

Weights, adapter, gradients and optimizer state are exact. Activations are modelled on transformers and TRL 1.16: for
Llama-3.1-8B and Qwen2-7B with LoRA the layers' estimate is up to 10% above PyTorch's peak, and up to 20% without
gradient checkpointing. The loss, DeepSpeed's buffers and overhead are taken from the libraries' source code and have
not been measured on a GPU. All figures assume a batch in which every text has `max_length` tokens.
"""

from dataclasses import dataclass

from safecomm.plan.memory import GIB, SINGLE, Parts
from safecomm.plan.shapes import HALF, ModelShape
from safecomm.spec import Finetune
from safecomm.spec.finetune import Nvme

REDUCE_BUCKET = 500_000_000
"""Elements of DeepSpeed's gradient buffer (`reduce_bucket_size`), always allocated in full."""
LIVE_PARAMETERS = 1_000_000_000
"""Parameters that ZeRO-3 keeps gathered (`stage3_max_live_parameters`, `stage3_max_reuse_distance`)."""
LOGITS_TILE = (4096, 32_768)
"""Tokens and vocabulary entries per tile: TRL computes the logits in tiles."""
HOST_BUFFERS = 1.5
"""Host memory per offloaded byte, as in DeepSpeed's own estimators."""
NVME_BUFFERS = 5
"""Shards in transfer between disk and GPU (`buffer_count`)."""
NF4 = 1 / 2 + 1 / 64 + SINGLE / (64 * 256)
"""Bytes per 4-bit weight: one 8-bit scale per 64 weights, one fp32 scale per 256 scales (double quantization)."""
TRAINING_OVERHEAD = 2 * GIB
"""CUDA context, NCCL buffers and cuBLAS workspace."""
FRAGMENTATION = 0.1
"""Overhead of torch's caching allocator, as a share of the transient tensors."""


@dataclass(frozen=True)
class FinetuneMemory(Parts):
    """Peak memory of one worker of a LoRA fine-tune; the peak is in the backward pass."""

    weights: int
    """Model and adapter; the worker's shard under ZeRO-3."""
    gradients: int
    optimizer: int
    """fp32 copies of the trained parameters and Adam's two moments."""
    buffers: int
    """DeepSpeed's gradient buffer and, under ZeRO-3, the gathered weights. Approximate upper bound."""
    activations: int
    """Saved activations: the layers' inputs, or without gradient checkpointing all that autograd saves. Estimate."""
    working_set: int
    """Temporary tensors of one layer or of the loss in the backward pass, whichever is larger. Estimate."""
    overhead: int
    """Estimate."""

    @property
    def certain(self) -> int:
        """The lower bound: the model states."""
        return self.weights + self.gradients + self.optimizer


@dataclass(frozen=True)
class ModelStates:
    """Weights, gradients and optimizer state of one worker, in bytes."""

    weights: int
    gradients: int
    optimizer: int
    host: int = 0
    """Bytes offloaded to the node's memory."""


def model_states(
    stage: int, workers: int, *, frozen: int, trained: int, each: int = HALF, offload: str = "none"
) -> ModelStates:
    """Returns the model states of one worker under ZeRO (Rajbhandari et al., arXiv 1910.02054, section 5).

    This follows DeepSpeed's implementation: gradients have the weights' dtype, and a worker also keeps fp32 copies of
    those that it updates. DeepSpeed's estimators agree for stage 2; for stage 3 they omit the 16-bit weights (2 of 20
    bytes) and count one gathered layer instead. They count offloaded states the same, times `HOST_BUFFERS`.

    Args:
        stage: 0 shards nothing, 1 the optimizer state, 2 also gradients, 3 also weights, including frozen ones.
        workers: data-parallel ranks.
        frozen: number of frozen parameters.
        trained: number of trained parameters.
        each: bytes per weight.
        offload: `none`, `cpu` or `nvme`.
    """
    by_weights, by_gradients, by_optimizer = (workers if stage >= least else 1 for least in (3, 2, 1))
    weights = each * (frozen + trained) // by_weights
    gradients, stepped = each * trained // by_gradients, SINGLE * trained // by_optimizer
    optimizer = 3 * SINGLE * trained // by_optimizer
    if offload == "none":
        return ModelStates(weights, gradients + stepped, optimizer)
    # Sharded gradients are moved to the host as they are computed; only the worker's own fp32 shard is kept there.
    left, host = 0 if stage > 1 else gradients, stepped + optimizer
    if stage < 3:
        return ModelStates(weights, left, 0, host)
    return ModelStates(0, left, 0, host + (weights if offload == "cpu" else 0))


def finetune_memory(shape: ModelShape, finetune: Finetune, workers: int) -> FinetuneMemory:
    """Returns the memory that each GPU of a fine-tune needs.

    Args:
        shape: the aligned model's shape.
        finetune: the sweep's `finetune` section.
        workers: `cluster.finetune.workers`.

    Raises:
        ModelError: if an adapter target is not a linear module of the model.
    """
    each, states = _states(shape, finetune, workers)
    trained = shape.adapter_parameters(finetune.lora.r, finetune.lora.targets)
    tokens = finetune.micro_batch(workers) * finetune.max_length
    buffers = each * _buffered(finetune.zero, shape.parameters + trained, trained)
    activations, layer = _layers_bytes(shape, finetune, tokens, each)
    working_set = max(layer, _loss_bytes(shape, tokens, each))
    return FinetuneMemory(
        weights=states.weights - (_spared_bytes(shape) if finetune.quantize != "none" else 0),
        gradients=states.gradients,
        optimizer=states.optimizer,
        buffers=buffers,
        activations=activations,
        working_set=working_set,
        overhead=TRAINING_OVERHEAD + int(FRAGMENTATION * (activations + working_set)),
    )


def host_memory(shape: ModelShape, finetune: Finetune, workers: int) -> int:
    """Estimates the host memory in bytes of each worker of a fine-tune with offloading.

    Raises:
        ModelError: if an adapter target is not a linear module of the model.
    """
    each, states = _states(shape, finetune, workers)
    swapped = NVME_BUFFERS * each * largest_weight(shape) // workers if isinstance(finetune.offload, Nvme) else 0
    return int(HOST_BUFFERS * states.host) + swapped


def largest_weight(shape: ModelShape) -> int:
    """Returns the size of the largest weight matrix: the embedding or an MLP matrix."""
    return max(shape.embedding, shape.hidden * shape.intermediate)


def _states(shape: ModelShape, finetune: Finetune, workers: int) -> tuple[int, ModelStates]:
    """Returns the bytes per parameter, and a worker's model states without quantization."""
    each = SINGLE if finetune.precision == "fp32" else HALF
    trained = shape.adapter_parameters(finetune.lora.r, finetune.lora.targets)
    offload = "nvme" if isinstance(finetune.offload, Nvme) else finetune.offload
    return each, model_states(
        finetune.zero, workers, frozen=shape.parameters, trained=trained, each=each, offload=offload
    )


def _spared_bytes(shape: ModelShape) -> int:
    """Returns the bytes saved by 4-bit linear modules; embeddings and norms stay in 16 bits."""
    linear = shape.layers * sum(d_out * d_in for d_out, d_in in shape.linear.values())
    return int(linear * (HALF - NF4))


def _buffered(stage: int, parameters: int, trained: int) -> int:
    """Returns the number of elements in DeepSpeed's buffers; without ZeRO the bucket holds only actual gradients."""
    bucket = REDUCE_BUCKET if stage else min(REDUCE_BUCKET, trained)
    return bucket + (min(parameters, LIVE_PARAMETERS) if stage == 3 else 0)


def _layers_bytes(shape: ModelShape, finetune: Finetune, tokens: int, each: int) -> tuple[int, int]:
    """Returns the bytes that all layers save for the backward pass, and one layer's temporary bytes there.

    A packed row is one sequence with a mask of one byte per token pair, which SDPA converts to the weights' dtype.
    4-bit weights are dequantized one matrix at a time.
    """
    saved = tokens * _saved_bytes(shape, each)
    in_hand = tokens * each * (2 * shape.hidden + 3 * shape.intermediate)
    mask = tokens**2 if finetune.packing else 0
    unpacked = HALF * max(d_out * d_in for d_out, d_in in shape.linear.values()) if finetune.quantize != "none" else 0
    if finetune.gradient_checkpointing is False:  # on GPUs it is the default
        return shape.layers * saved + mask, in_hand + each * mask + unpacked
    return shape.layers * tokens * each * shape.hidden + mask, saved + in_hand + each * mask + unpacked


def _saved_bytes(shape: ModelShape, each: int) -> int:
    """Returns the bytes per token that autograd saves for a layer.

    They are the fp32 inputs and the outputs of both norms, queries, keys, values, the attention output, and four MLP
    intermediates. SDPA never materializes the attention matrix.
    """
    heads = 2 * (shape.heads + shape.kv_heads) * shape.head_dim
    return 2 * SINGLE * shape.hidden + each * (2 * shape.hidden + heads + 4 * shape.intermediate)


def _loss_bytes(shape: ModelShape, tokens: int, each: int) -> int:
    """Returns the bytes of the loss: one tile of logits, and the last hidden states with their fp32 gradients."""
    tile = min(tokens, LOGITS_TILE[0]) * min(shape.vocabulary, LOGITS_TILE[1])
    return each * tile + tokens * shape.hidden * (2 * SINGLE + 3 * each)
