"""All uses of DeepSpeed 0.19's private API. A later DeepSpeed may change it without notice.

If it does, tests/finetune/test_job.py and tests/finetune/test_sharding.py fail.
"""


def has_async_io() -> bool:
    """Returns whether DeepSpeed's asynchronous disk I/O works on this machine; it needs libaio.

    The public `ds_report` only prints this.
    """
    import deepspeed

    return bool(deepspeed.ops.__compatible_ops__["async_io"])


def reduce_with_gloo() -> None:
    """Makes DeepSpeed use Gloo's all-reduce on CPUs instead of compiling its own; there is no setting for this.

    Compiling needs a compiler on every node, and a run killed during compilation leaves a lock that blocks all later
    runs forever.
    """
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
