"""DeepSpeed configurations: ZeRO sharding and offloading."""

from typing import Any

from safecomm.errors import TrainingError
from safecomm.finetune.deepspeed_internals import has_async_io
from safecomm.finetune.job import FinetuneJob


def deepspeed_config(job: FinetuneJob, *, bf16: bool) -> dict[str, Any]:
    """Returns the configuration of a job's ranks.

    Raises:
        TrainingError: if weights are to be offloaded to NVMe but DeepSpeed lacks async I/O.
    """
    if job.swap is None:
        return zero_config(job.zero, bf16, job.offload)
    if not has_async_io():
        raise TrainingError(
            "finetune.offload: nvme needs DeepSpeed's async_io, which is compiled with libaio; install the libaio "
            "headers and a compiler on every node, or set finetune.offload: cpu"
        )
    return zero_config(job.zero, bf16, {"nvme": str(job.swap)}, _largest_shard(job))


def zero_config(
    stage: int, bf16: bool, offload: str | dict[str, str] = "none", largest_shard: int = 0
) -> dict[str, Any]:
    """Returns a DeepSpeed configuration; "auto" values are taken from the training arguments.

    Args:
        stage: 0 shards nothing (data parallel), 1 the optimizer state, 2 also the gradients, 3 also the weights
            (Rajbhandari et al., arXiv 1910.02054).
        bf16: whether to train in bfloat16.
        offload: `none`, `cpu`, or `{"nvme": folder}` (ZeRO-Infinity, arXiv 2104.07857).
        largest_shard: elements in a rank's shard of the largest weight; needed for NVMe.
    """
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": False, "contiguous_gradients": True}
    if stage == 3:
        # Without this the saved adapter contains empty shards.
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    return {
        "zero_optimization": zero | _offloaded(stage, offload, largest_shard),
        "bf16": {"enabled": bf16},
        # torch's AdamW, even when offloading: DeepSpeed's optimizers are compiled on first use, which needs a compiler
        # on every node. An adapter is small enough for torch to update on a CPU.
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
    # An adapter's optimizer state is small: it stays in memory even if the weights are offloaded to disk.
    sections: dict[str, Any] = {"offload_optimizer": {"device": "cpu"}}
    if stage == 3:
        sections["offload_param"] = {"device": "cpu"}
    if isinstance(offload, dict):
        # Each weight must fit into one buffer; DeepSpeed does not adapt its size.
        sections["offload_param"] = {"device": "nvme", "nvme_path": offload["nvme"], "buffer_size": largest_shard}
    return sections


def _largest_shard(job: FinetuneJob) -> int:
    """Returns the elements in a rank's shard of the largest weight: an embedding or an MLP matrix."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(job.model).get_text_config()
    largest: int = config.hidden_size * max(config.vocab_size, config.intermediate_size)
    return -(-largest // job.workers)
