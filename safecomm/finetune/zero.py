"""DeepSpeed configurations: what ZeRO shards over the ranks of a fine-tune, and what it keeps off their GPUs."""

from typing import Any

from safecomm.errors import TrainingError
from safecomm.finetune.deepspeed_internals import has_async_io
from safecomm.finetune.job import FinetuneJob


def deepspeed_config(job: FinetuneJob, *, bf16: bool) -> dict[str, Any]:
    """Returns the configuration of a job's ranks.

    Raises:
        TrainingError: for weights on a disk where DeepSpeed can't read and write there.
    """
    if job.swap is None:
        return zero_config(job.zero, bf16, job.offload)
    if not has_async_io():
        raise TrainingError(
            "finetune.offload: nvme needs DeepSpeed's async_io, which it compiles with libaio; install libaio's "
            "development files and a compiler on every node, or set finetune.offload: cpu"
        )
    return zero_config(job.zero, bf16, {"nvme": str(job.swap)}, _largest_shard(job))


def zero_config(
    stage: int, bf16: bool, offload: str | dict[str, str] = "none", largest_shard: int = 0
) -> dict[str, Any]:
    """Returns a DeepSpeed configuration; "auto" values are filled in from the training arguments.

    Args:
        stage: 0 shards nothing (data parallel), 1 the optimizer state, 2 also the gradients, 3 also the weights
            (Rajbhandari et al., arXiv 1910.02054).
        bf16: train in bfloat16.
        offload: `none`, `cpu`, or `{"nvme": folder}` (ZeRO-Infinity, arXiv 2104.07857).
        largest_shard: numbers in a rank's share of the model's largest weight; needed for NVMe.
    """
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": False, "contiguous_gradients": True}
    if stage == 3:
        # Without it the saved adapter holds empty shards.
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    return {
        "zero_optimization": zero | _offloaded(stage, offload, largest_shard),
        "bf16": {"enabled": bf16},
        # torch's own AdamW, also for what is offloaded: DeepSpeed's are compiled on first use, which needs a compiler
        # on every node. An adapter is small enough for torch to step it on a CPU.
        "optimizer": {
            "type": "AdamW",
            "params": {"torch_adam": True, "lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"},
        },
        "gradient_clipping": "auto",
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "steps_per_print": 1_000_000,
    }


def _offloaded(stage: int, offload: str | dict[str, str], largest_shard: int) -> dict[str, Any]:
    if offload == "none":
        return {}
    # Of an adapter alone, the optimizer state is small: it stays in memory where the weights go to a disk.
    sections: dict[str, Any] = {"offload_optimizer": {"device": "cpu"}}
    if stage == 3:
        sections["offload_param"] = {"device": "cpu"}
    if isinstance(offload, dict):
        # A weight passes through one buffer, whose size DeepSpeed does not adapt.
        sections["offload_param"] = {"device": "nvme", "nvme_path": offload["nvme"], "buffer_size": largest_shard}
    return sections


def _largest_shard(job: FinetuneJob) -> int:
    """Returns how many numbers a rank has of the largest weight: an embedding, or one of the MLP's."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(job.model).get_text_config()
    largest: int = config.hidden_size * max(config.vocab_size, config.intermediate_size)
    return -(-largest // job.workers)
