"""What a fine-tune and the fleet need of each GPU, from the model's shape and the sweep alone.

Weights, adapters, optimizer state and KV cache are counted. Activations are modelled on what transformers, TRL 1.16 and
vLLM 0.29 keep: those of a fine-tune's layers lie up to a tenth above the peak that PyTorch reaches at the shapes of
Llama-3.1-8B and Qwen2-7B with LoRA. The loss, vLLM's steps, DeepSpeed's buffers and all overhead are read from the
libraries' code and were measured on no GPU. A fine-tune's are those of a batch whose texts all reach `max_length`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from safecomm.evaluate.lora_slots import served_rank, slots_within
from safecomm.plan.shapes import ATTENTION_INPUTS, HALF, MLP_INPUTS, ModelShape
from safecomm.spec import Finetune
from safecomm.spec.finetune import Nvme
from safecomm.spec.sweep import Replicas

GIB = 1 << 30
SINGLE = 4
"""Bytes of an fp32 number."""
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
GPU_UTILIZATION = 0.92
"""Share of a GPU that vLLM takes (its default of `gpu_memory_utilization`)."""
SERVING_OVERHEAD = 3 * GIB // 2
"""CUDA's context, NCCL's buffers and CUDA graphs."""
LARGE_GPU = 70 * GIB
"""From this size on vLLM takes the larger steps (but for the A100, where what is said here is too much by half)."""


class Parts:
    """Bytes on one GPU, by what they are for."""

    @property
    def parts(self) -> dict[str, int]:
        """Part -> bytes."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    @property
    def total(self) -> int:
        """Sum of the parts."""
        return sum(self.parts.values())


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
class FleetMemory(Parts):
    """One GPU of a vLLM engine, the fullest where it has several."""

    weights: int
    lora_slots: int
    """Room for the adapters of one batch, taken whether they are there or not."""
    working_set: int
    """A step's activations and logits. Estimate."""
    sequence: int
    """The KV cache of one text of `max_model_len` tokens, the least that vLLM starts with."""
    overhead: int
    """Estimate."""

    @property
    def certain(self) -> int:
        """What can't be less."""
        return self.weights + self.lora_slots + self.sequence

    def sequences(self, gpu_bytes: int) -> int:
        """Texts of `max_model_len` tokens whose KV cache fits into what vLLM takes of a GPU: how many run at a time.

        Shorter ones are more.
        """
        return max(0, served(gpu_bytes) - self.total + self.sequence) // self.sequence


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


def fleet_memory(
    shape: ModelShape,
    size: Replicas,
    *,
    gpu_bytes: int,
    max_model_len: int,
    lora_rank: int = 0,
    targets: Sequence[str] = (),
) -> FleetMemory:
    """Returns what each GPU of an engine needs.

    Args:
        shape: the served model's.
        size: `cluster.target` or `cluster.judge`.
        gpu_bytes: memory of a GPU, by which vLLM chooses how much it does in a step.
        max_model_len: tokens of the longest prompt and answer.
        lora_rank: the largest rank of an adapter; 0 where none is served.
        targets: the linear modules that adapters touch.

    Raises:
        ModelError: when the targets are none of the model's linear modules.
        EvaluationError: for a rank that vLLM does not serve.
    """
    tensor, pipeline = size.tensor_parallel, size.pipeline_parallel
    layers = -(-shape.layers // pipeline)
    # vLLM has a copy of each key-value head where there are fewer of them than GPUs.
    kv_share = max(1, shape.kv_heads // tensor) / shape.kv_heads
    slot = 0
    if lora_rank:
        slot = HALF * layers * _slot_parameters(shape, served_rank(lora_rank), list(targets), tensor, kv_share)
    return FleetMemory(
        weights=HALF * _served_parameters(shape, layers, size, kv_share),
        lora_slots=slot * slots_within(slot, gpu_bytes) if slot else 0,
        working_set=_step_bytes(shape, tensor, large=gpu_bytes >= LARGE_GPU),
        sequence=int(max_model_len * shape.kv_bytes / shape.layers * layers * kv_share),
        overhead=SERVING_OVERHEAD,
    )


def served(gpu_bytes: int) -> int:
    """Bytes that vLLM takes of a GPU."""
    return int(GPU_UTILIZATION * gpu_bytes)


def _served_parameters(shape: ModelShape, layers: int, size: Replicas, kv_share: float) -> int:
    """Parameters on one GPU; of several pipeline stages the first and the last hold an embedding each."""
    shares = dict.fromkeys(shape.linear, 1 / size.tensor_parallel) | {"k_proj": kv_share, "v_proj": kv_share}
    layer = sum(d_out * d_in * shares[name] for name, (d_out, d_in) in shape.linear.items()) + shape.layer_vectors
    ends = 1 if shape.tied or size.pipeline_parallel > 1 else 2
    return int(layers * layer + ends * shape.embedding / size.tensor_parallel) + shape.hidden


def _slot_parameters(shape: ModelShape, rank: int, targets: list[str], tensor: int, kv_share: float) -> int:
    """Parameters of one adapter's place in a layer, on one GPU.

    vLLM fuses q, k, v and gate, up: an adapter on one of them takes the place of all. Modules that are split by their
    outputs have B split and A whole, those split by their inputs the reverse.
    """
    named = set(shape.modules(targets))
    for fused in (ATTENTION_INPUTS, MLP_INPUTS):
        named |= set(fused) if named & set(fused) else set()
    shares = dict.fromkeys(shape.linear, 1 / tensor) | {"k_proj": kv_share, "v_proj": kv_share}
    numbers = 0.0
    for name in named:
        d_out, d_in = shape.linear[name]
        by_outputs = name in ATTENTION_INPUTS + MLP_INPUTS
        numbers += d_in + d_out * shares[name] if by_outputs else d_in * shares[name] + d_out
    return int(rank * numbers)


def _step_bytes(shape: ModelShape, tensor: int, *, large: bool) -> int:
    """Bytes of a step of vLLM at the sizes that it chooses: a batch's tokens in a layer, and logits in fp32 twice."""
    tokens, sequences = (16_384, 1024) if large else (8192, 256)
    layer = HALF * tokens * (4 * shape.hidden + 3 * shape.intermediate // tensor)
    return layer + sequences * shape.vocabulary * (HALF + 2 * SINGLE)
