"""DeepSpeed configurations: what ZeRO shards over the ranks of a fine-tune."""

from typing import Any


def zero_config(stage: int, bf16: bool) -> dict[str, Any]:
    """Returns a DeepSpeed configuration; "auto" values are filled in from the training arguments.

    Args:
        stage: 0 shards nothing (data parallel), 1 the optimizer state, 2 also the gradients, 3 also the weights
            (Rajbhandari et al., arXiv 1910.02054).
        bf16: train in bfloat16.
    """
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": False, "contiguous_gradients": True}
    if stage == 3:
        # Without it the saved adapter holds empty shards.
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    return {
        "zero_optimization": zero,
        "bf16": {"enabled": bf16},
        # torch's own AdamW: DeepSpeed's are compiled on first use, which needs a compiler on every node.
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
