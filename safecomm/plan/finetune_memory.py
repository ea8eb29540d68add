"""What a fine-tune needs of each GPU and each node, from the model's shape and the sweep alone.

Weights, adapter, gradients and optimizer state are counted. Activations are modelled on what transformers and TRL 1.16
keep: at the shapes of Llama-3.1-8B and Qwen2-7B with LoRA, those of the layers lie up to a tenth above the peak that
PyTorch reaches, up to a fifth without gradient checkpointing. The loss, DeepSpeed's buffers and all overhead are read
from the libraries' code and were measured on no GPU. All are those of a batch whose texts all reach `max_length`.
"""

from dataclasses import dataclass

from safecomm.plan.memory import GIB, SINGLE, Parts
from safecomm.plan.shapes import HALF, ModelShape
from safecomm.spec import Finetune
from safecomm.spec.finetune import Nvme

REDUCE_BUCKET = 500_000_000
"""Numbers in DeepSpeed's buffer for gradients (`reduce_bucket_size`), allocated whole however few are trained."""
LIVE_PARAMETERS = 1_000_000_000
"""Parameters that ZeRO-3 keeps gathered (`stage3_max_live_parameters`, `stage3_max_reuse_distance`)."""
LOGITS_TILE = (4096, 32_768)
"""Tokens and vocabulary of the logits that TRL has at a time; it never has all of them."""
HOST_BUFFERS = 1.5
"""What DeepSpeed takes of a node's memory for each byte that it keeps there, as its own estimators have it."""
NVME_BUFFERS = 5
"""Shards that are on their way between a disk and a GPU (`buffer_count`)."""
NF4 = 1 / 2 + 1 / 64 + SINGLE / (64 * 256)
"""Bytes of a 4-bit weight: blocks of 64 have a scale in 8 bits, 256 of these one in fp32 (double quantization)."""
TRAINING_OVERHEAD = 2 * GIB
"""CUDA's context, NCCL's buffers and cuBLAS's workspace."""
FRAGMENTATION = 0.1
"""What torch's allocator holds of a fine-tune's passing tensors beyond their size."""


@dataclass(frozen=True)
class FinetuneMemory(Parts):
    """One worker of a LoRA fine-tune at its peak, which is in the backward pass."""

    weights: int
    """The model's and the adapter's; a worker's share of them under ZeRO-3."""
    gradients: int
    optimizer: int
    """fp32 copies of what is trained and Adam's two moments."""
    buffers: int
    """DeepSpeed's buffer for gradients and, under ZeRO-3, the weights that are gathered at a time; at most about."""
    activations: int
    """The layers' inputs, all that gradient checkpointing keeps, or without it what each layer saves. Estimate."""
    working_set: int
    """What one layer, or the loss, has in hand during the backward pass, whichever is more. Estimate."""
    overhead: int
    """Estimate."""

    @property
    def certain(self) -> int:
        """What can't be less: the states of the model."""
        return self.weights + self.gradients + self.optimizer


@dataclass(frozen=True)
class ModelStates:
    """Weights, gradients and optimizer state of one worker, in bytes."""

    weights: int
    gradients: int
    optimizer: int
    host: int = 0
    """What of them is in the node's memory, and not on the GPU."""


def model_states(
    stage: int, workers: int, *, frozen: int, trained: int, each: int = HALF, offload: str = "none"
) -> ModelStates:
    """Returns what ZeRO leaves on each worker (Rajbhandari et al., arXiv 1910.02054, section 5; as DeepSpeed does it).

    DeepSpeed keeps gradients like the weights, and those that a worker steps with in fp32 as well. Its own estimators
    agree for stage 2; for stage 3 they leave out the 16-bit weights (2 of 20 bytes) and count a gathered layer instead.
    What is offloaded they count alike, times `HOST_BUFFERS`.

    Args:
        stage: 0 shards nothing, 1 optimizer, 2 + gradients, 3 + weights, also frozen ones.
        workers: data-parallel ranks.
        frozen: parameters that are not trained.
        trained: parameters that are.
        each: bytes of a weight.
        offload: `none`, `cpu` or `nvme`.
    """
    by_weights, by_gradients, by_optimizer = (workers if stage >= least else 1 for least in (3, 2, 1))
    weights = each * (frozen + trained) // by_weights
    gradients, stepped = each * trained // by_gradients, SINGLE * trained // by_optimizer
    optimizer = 3 * SINGLE * trained // by_optimizer
    if offload == "none":
        return ModelStates(weights, gradients + stepped, optimizer)
    # Sharded gradients go to the host as they come, where those that a worker steps with are all that is kept.
    left, host = 0 if stage > 1 else gradients, stepped + optimizer
    if stage < 3:
        return ModelStates(weights, left, 0, host)
    return ModelStates(0, left, 0, host + (weights if offload == "cpu" else 0))


def finetune_memory(shape: ModelShape, finetune: Finetune, workers: int) -> FinetuneMemory:
    """Returns what each GPU of a fine-tune needs.

    Args:
        shape: the aligned model's.
        finetune: a sweep's section.
        workers: `cluster.finetune.workers`.

    Raises:
        ModelError: when the adapter's targets are none of the model's linear modules.
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
    """Returns what each worker of a fine-tune that offloads takes of its node's memory, in bytes. Estimate.

    Raises:
        ModelError: when the adapter's targets are none of the model's linear modules.
    """
    each, states = _states(shape, finetune, workers)
    swapped = NVME_BUFFERS * each * largest_weight(shape) // workers if isinstance(finetune.offload, Nvme) else 0
    return int(HOST_BUFFERS * states.host) + swapped


def largest_weight(shape: ModelShape) -> int:
    """Returns the parameters of the largest weight: the embedding, or one of the MLP's."""
    return max(shape.embedding, shape.hidden * shape.intermediate)


def _states(shape: ModelShape, finetune: Finetune, workers: int) -> tuple[int, ModelStates]:
    """Returns the bytes of a number, and the states of a worker as if no weight were quantized."""
    each = SINGLE if finetune.precision == "fp32" else HALF
    trained = shape.adapter_parameters(finetune.lora.r, finetune.lora.targets)
    offload = "nvme" if isinstance(finetune.offload, Nvme) else finetune.offload
    return each, model_states(
        finetune.zero, workers, frozen=shape.parameters, trained=trained, each=each, offload=offload
    )


def _spared_bytes(shape: ModelShape) -> int:
    """Bytes by which the linear modules are smaller in 4 bits than in 16; embeddings and norms stay as they are."""
    linear = shape.layers * sum(d_out * d_in for d_out, d_in in shape.linear.values())
    return int(linear * (HALF - NF4))


def _buffered(stage: int, parameters: int, trained: int) -> int:
    """Numbers in DeepSpeed's buffers; without ZeRO gradients are copied together as they are."""
    bucket = REDUCE_BUCKET if stage else min(REDUCE_BUCKET, trained)
    return bucket + (min(parameters, LIVE_PARAMETERS) if stage == 3 else 0)


def _layers_bytes(shape: ModelShape, finetune: Finetune, tokens: int, each: int) -> tuple[int, int]:
    """Bytes that all layers keep for the backward pass, and those that one has in hand there.

    Packed rows are one sequence to the model, with a mask of a byte for each pair of its tokens that SDPA takes in the
    type of the weights. Weights in 4 bits are unpacked one at a time.
    """
    saved = tokens * _saved_bytes(shape, each)
    in_hand = tokens * each * (2 * shape.hidden + 3 * shape.intermediate)
    mask = tokens**2 if finetune.packing else 0
    unpacked = HALF * max(d_out * d_in for d_out, d_in in shape.linear.values()) if finetune.quantize != "none" else 0
    if finetune.gradient_checkpointing is False:  # on GPUs it is the default
        return shape.layers * saved + mask, in_hand + each * mask + unpacked
    return shape.layers * tokens * each * shape.hidden + mask, saved + in_hand + each * mask + unpacked


def _saved_bytes(shape: ModelShape, each: int) -> int:
    """Bytes a token that autograd saves of a layer.

    Those are both norms' inputs in fp32 and outputs, queries, keys, values, attention, and the MLP's four inner
    vectors. Attention's weights are never whole (SDPA).
    """
    heads = 2 * (shape.heads + shape.kv_heads) * shape.head_dim
    return 2 * SINGLE * shape.hidden + each * (2 * shape.hidden + heads + 4 * shape.intermediate)


def _loss_bytes(shape: ModelShape, tokens: int, each: int) -> int:
    """Bytes of the loss: a tile of logits, and the last hidden states with their gradients in fp32."""
    tile = min(tokens, LOGITS_TILE[0]) * min(shape.vocabulary, LOGITS_TILE[1])
    return each * tile + tokens * shape.hidden * (2 * SINGLE + 3 * each)
