"""The sweep file: every field, its meaning and its limits. Mistakes are reported here, before anything runs.

Reading a sweep does not import torch, ray, vllm or wandb, so a laptop validates one in about a second.
"""

from safecomm.spec.arms import ORIGINAL, REFERENCE_ARMS, UNDEFENDED, Step
from safecomm.spec.datasets import DatasetRef
from safecomm.spec.file import read_sweep
from safecomm.spec.finetune import Finetune
from safecomm.spec.sweep import Sweep

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
