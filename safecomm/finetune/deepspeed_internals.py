"""What the project uses of DeepSpeed 0.19 beside its public API. A later DeepSpeed may move it without notice.

tests/finetune/test_job.py and tests/finetune/test_sharding.py fail then.
"""


def has_async_io() -> bool:
    """Tells whether DeepSpeed can read and write a disk asynchronously here, which takes libaio.

    Its public `ds_report` only prints it.
    """
    import deepspeed

    return bool(deepspeed.ops.__compatible_ops__["async_io"])


def reduce_with_gloo() -> None:
    """Keeps DeepSpeed on CPUs from compiling an all-reduce of its own. There is no setting for it.

    It takes a compiler on every node, and a run that is killed meanwhile leaves a lock for which all later ones wait
    for ever. Gloo's serves.
    """
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
