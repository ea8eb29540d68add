"""Defenses that make a LoRA adapter safer without training.

    adapter = Adapter.load("telecom-adapter")
    measured = profile("Llama-3.1-8B", "Llama-3.1-8B-Instruct", adapter)     # the only pass over the weights
    safe_lora(measured, threshold=0.35).save("projected")
    safe_merge(measured, Adapter.load("safe-adapter"), weight=0.7, quantile=0.5).save("merged")

In a chain of defenses, the output of one is profiled again as the input of the next.

Names that need torch are imported on first access, so a sweep can be read without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from safecomm.defenses.defense import Defense, Realignment, Selecting, TrainingDefense
from safecomm.defenses.registry import DEFENSES
from safecomm.statistics.selection import breakpoints, select

if TYPE_CHECKING:
    from safecomm.defenses.adapter import Adapter
    from safecomm.defenses.alignment import Profile, profile
    from safecomm.defenses.full_weights import Extracted, extract_lora, project_full_weights
    from safecomm.defenses.methods.drop import drop
    from safecomm.defenses.methods.resta_instruct import resta_instruct
    from safecomm.defenses.methods.safe_delta import safe_delta
    from safecomm.defenses.methods.safe_lora import safe_lora
    from safecomm.defenses.methods.safe_merge import safe_merge
    from safecomm.defenses.methods.scale import scale
    from safecomm.defenses.moments import Moments, input_moments
    from safecomm.defenses.realigned import Realigned

__all__ = [
    "DEFENSES",
    "Adapter",
    "Defense",
    "Extracted",
    "Moments",
    "Profile",
    "Realigned",
    "Realignment",
    "Selecting",
    "TrainingDefense",
    "breakpoints",
    "drop",
    "extract_lora",
    "input_moments",
    "profile",
    "project_full_weights",
    "resta_instruct",
    "safe_delta",
    "safe_lora",
    "safe_merge",
    "scale",
    "select",
]
_LAZY = {
    "adapter": ("Adapter",),
    "alignment": ("Profile", "profile"),
    "full_weights": ("Extracted", "extract_lora", "project_full_weights"),
    "methods.drop": ("drop",),
    "methods.resta_instruct": ("resta_instruct",),
    "methods.safe_delta": ("safe_delta",),
    "methods.safe_lora": ("safe_lora",),
    "methods.safe_merge": ("safe_merge",),
    "methods.scale": ("scale",),
    "moments": ("Moments", "input_moments"),
    "realigned": ("Realigned",),
}


def __getattr__(name: str) -> Any:
    for module, names in _LAZY.items():
        if name in names:
            return getattr(import_module(f"safecomm.defenses.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
