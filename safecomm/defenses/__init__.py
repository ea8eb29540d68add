"""Defenses that turn one LoRA adapter into a safer one, without training.

    adapter = Adapter.load("telecom-adapter")
    measured = profile("Llama-3.1-8B", "Llama-3.1-8B-Instruct", adapter)     # reads the weights, once
    safe_lora(measured, threshold=0.35).save("projected")
    safe_merge(measured, Adapter.load("safe-adapter"), weight=0.7, quantile=0.5).save("merged")

In a chain, the adapter that one defense gives gets a profile of its own for the next.
"""

from collections.abc import Callable
from dataclasses import dataclass

from safecomm.defenses.adapter import Adapter
from safecomm.defenses.alignment import Profile, profile
from safecomm.defenses.controls import drop, resta_instruct, scale
from safecomm.defenses.full_weights import Extracted, extract_lora, project_full_weights
from safecomm.defenses.realigned import Realigned
from safecomm.defenses.safe_lora import safe_lora
from safecomm.defenses.safe_merge import safe_merge
from safecomm.statistics.selection import breakpoints, select

__all__ = [
    "DEFENSES",
    "Adapter",
    "Extracted",
    "Profile",
    "Realigned",
    "breakpoints",
    "drop",
    "extract_lora",
    "profile",
    "project_full_weights",
    "resta_instruct",
    "safe_lora",
    "safe_merge",
    "scale",
    "select",
]


@dataclass(frozen=True)
class Defense:
    """A defense and what it works on."""

    apply: Callable[..., Realigned]
    """Called with what it needs, in that order, and its settings by name."""
    needs: tuple[str, ...]
    """Of `adapter`, `profile` (the adapter's), `safe` (the safe adapter), `base` and `aligned` (checkpoint folders)."""


DEFENSES: dict[str, Defense] = {
    "safe_lora": Defense(safe_lora, ("profile",)),
    "safe_merge": Defense(safe_merge, ("profile", "safe")),
    "drop": Defense(drop, ("profile",)),
    "scale": Defense(scale, ("adapter",)),
    "resta_instruct": Defense(resta_instruct, ("adapter", "base", "aligned")),
}
