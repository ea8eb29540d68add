"""SafeLoRA: project unsafe modules onto the alignment subspace."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from safecomm.defenses.adapter import Adapter, Factors
from safecomm.defenses.alignment import Profile
from safecomm.defenses.selection import select


def safe_lora(adapter: Adapter, profile: Profile, selected: Collection[str]) -> Adapter:
    """Projects the update of the selected modules: dW <- C dW, with C = V V^T / ||V||_F and V = W_aligned - W_base.

    SafeLoRA (arXiv 2405.16833), in the fast form of its released code. C acts on B alone, so the rank stays.

    Limitations: C is a Gram matrix, no projector. Its norm is sigma_1(V)^2 / ||V||_F, which is so small for the V of
    real models that the projection nearly deletes the update; the profile's projected_norm / update_norm tells by how
    much. The exact projector V (V^T V)^+ V^T would be the identity for every V of full rank with d_out <= d_in.

    Args:
        adapter: the fine-tuned adapter.
        profile: its alignment profile.
        selected: names of the modules to project.

    Raises:
        ModelError: where the profile is that of another adapter.
    """
    profile.require(adapter)
    projected = {name: _projected(adapter.modules[name], profile.projected[name]) for name in selected}
    return replace(adapter, modules={**adapter.modules, **projected})


def apply(
    adapter: Adapter, profile: Profile, settings: Mapping[str, Any], safe: Adapter | None
) -> tuple[Adapter, list[str]]:
    """Carries out a sweep's `safe_lora` step; returns the projected adapter and the modules acted on.

    Args:
        adapter: the fine-tuned adapter.
        profile: its alignment profile.
        settings: one way of selecting modules; `threshold` selects rho <= threshold.
        safe: unused; every defense takes the same arguments.

    Raises:
        ModelError: where the profile is that of another adapter.
        UsageError: where the settings make no sense.
    """
    selected = select(profile, settings)
    return safe_lora(adapter, profile, selected), selected


def _projected(factors: Factors, product: Tensor) -> Factors:
    # C shrinks B to where float16 has few digits left.
    dtype = torch.float32 if factors.B.dtype == torch.float16 else factors.B.dtype
    return factors._replace(B=product.to(dtype))
