"""SafeMERGE: merge unsafe modules with those of a safe adapter."""

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from safecomm.defenses.adapter import Adapter, Factors
from safecomm.defenses.alignment import Profile
from safecomm.defenses.selection import select
from safecomm.defenses.threads import one_thread
from safecomm.errors import ModelError, UsageError


@one_thread()
def safe_merge(
    adapter: Adapter, safe: Adapter, selected: Collection[str], weight: float, combine: str = "cat"
) -> Adapter:
    """Merges the update of the selected modules with a safe adapter's: dW <- weight dW_f + (1 - weight) dW_s.

    SafeMERGE (arXiv 2503.17239, eq. 4). `cat` is that sum, exactly, by concatenating the factors to rank r_f + r_s.

    Limitations: `linear`, PEFT's combination that the released code uses, is not that sum. It adds up the A and the B
    factors separately, each weighted with sqrt(weight * scaling), which brings in the cross terms
    sqrt(weight (1 - weight) scaling_f scaling_s) (B_f A_s + B_s A_f). Modules that only the safe adapter has stay as
    the fine-tuned model has them.

    Args:
        adapter: the fine-tuned adapter.
        safe: the adapter tuned on safety data alone, on the same aligned model.
        selected: names of the modules to merge.
        weight: weight of the fine-tuned adapter, 0 to 1; the safe adapter gets the rest.
        combine: `cat` or `linear`.

    Raises:
        ModelError: where the safe adapter lacks a selected module or has it in another shape, or, for `linear`, in
            another rank.
        UsageError: where weight or combine makes no sense.
    """
    if not 0 <= weight <= 1:
        raise UsageError(f"weight must lie between 0 and 1, not {weight:g}")
    if combine not in COMBINATIONS:
        raise UsageError(f"there is no combination {combine!r}; take one of {', '.join(COMBINATIONS)}")
    merged = {}
    for name in selected:
        _check_pair(adapter, safe, name, combine)
        merged[name] = COMBINATIONS[combine](adapter.modules[name], safe.modules[name], weight)
    return replace(adapter, modules={**adapter.modules, **merged})


def apply(
    adapter: Adapter, profile: Profile, settings: Mapping[str, Any], safe: Adapter | None
) -> tuple[Adapter, list[str]]:
    """Carries out a sweep's `safe_merge` step; returns the merged adapter and the modules acted on.

    Args:
        adapter: the fine-tuned adapter.
        profile: its alignment profile.
        settings: one way of selecting modules, where `threshold` selects rho < threshold; `weight`; `combine`, by
            default `cat`.
        safe: the adapter tuned on safety data alone.

    Raises:
        ModelError: where the safe adapter doesn't fit, or the profile is that of another adapter.
        UsageError: where the settings make no sense or the safe adapter is missing.
    """
    if safe is None:
        raise UsageError("safe_merge needs a safe adapter; give one that was trained on safety data alone")
    profile.require(adapter)
    safe.check()
    selected = select(profile, settings, strict=True)
    return safe_merge(adapter, safe, selected, settings["weight"], settings.get("combine", "cat")), selected


def _check_pair(adapter: Adapter, safe: Adapter, name: str, combine: str) -> None:
    if name not in safe.modules:
        raise ModelError(
            f"{safe.source}: has no update for {name}; train the safe adapter on the modules of {adapter.source}"
        )
    ours, theirs = adapter.modules[name], safe.modules[name]
    if (ours.A.shape[1], ours.B.shape[0]) != (theirs.A.shape[1], theirs.B.shape[0]):
        raise ModelError(
            f"{safe.source}: {name} has another shape than in {adapter.source}; both must adapt the same model"
        )
    if combine == "linear" and ours.A.shape != theirs.A.shape:
        raise ModelError(
            f"{safe.source}: {name} has rank {theirs.A.shape[0]} and {adapter.source} has rank {ours.A.shape[0]}; "
            "combine: linear needs equal ranks, combine: cat does not"
        )


def _cat(ours: Factors, theirs: Factors, weight: float) -> Factors:
    left, right = weight * ours.scaling, (1 - weight) * theirs.scaling
    B = torch.cat([left * _wide(ours.B), right * _wide(theirs.B)], dim=1)
    return Factors(torch.cat([ours.A, theirs.A]), B.to(_common(ours.B, theirs.B)), 1.0)


def _linear(ours: Factors, theirs: Factors, weight: float) -> Factors:
    left, right = math.sqrt(weight * ours.scaling), math.sqrt((1 - weight) * theirs.scaling)
    A = left * _wide(ours.A) + right * _wide(theirs.A)
    B = left * _wide(ours.B) + right * _wide(theirs.B)
    return Factors(A.to(_common(ours.A, theirs.A)), B.to(_common(ours.B, theirs.B)), 1.0)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _common(left: Tensor, right: Tensor) -> torch.dtype:
    return torch.promote_types(left.dtype, right.dtype)


COMBINATIONS = {"cat": _cat, "linear": _linear}
