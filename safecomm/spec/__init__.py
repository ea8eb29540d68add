"""The sweep file: every field, its meaning and its limits. Every mistake is found here, before anything runs.

Reading a sweep imports neither torch, ray, vllm nor wandb, so that a laptop can check one in a second.
"""

from safecomm.spec.arms import Step
from safecomm.spec.datasets import DatasetRef
from safecomm.spec.file import read_sweep
from safecomm.spec.finetune import Finetune
from safecomm.spec.sweep import ORIGINAL, REFERENCE_ARMS, UNDEFENDED, Sweep

__all__ = [
    "ORIGINAL",
    "REFERENCE_ARMS",
    "UNDEFENDED",
    "DatasetRef",
    "Finetune",
    "Step",
    "Sweep",
    "read_sweep",
]
