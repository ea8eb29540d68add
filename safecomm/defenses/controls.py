"""Controls and baselines, without which SafeLoRA and SafeMERGE can't be judged."""

from dataclasses import replace
from pathlib import Path
from typing import Unpack

import torch

from safecomm.defenses.adapter import Adapter, Factors
from safecomm.defenses.alignment import Profile, alignment_of
from safecomm.defenses.combine import cat
from safecomm.defenses.low_rank import leading
from safecomm.defenses.realigned import Realigned
from safecomm.defenses.threads import Report, in_parallel, silent
from safecomm.errors import DefenseError
from safecomm.statistics.selection import Selection, select


def drop(profile: Profile, **by: Unpack[Selection]) -> Realigned:
    """Removes the update of the selected modules: dW <- 0, the aligned model's own weights.

    What SafeLoRA comes close to where C is small; a SafeLoRA that is no better than this owes nothing to alignment.

    Args:
        profile: the alignment profile of the fine-tuned adapter.
        **by: one way of selecting modules; `threshold` selects rho <= threshold.

    Raises:
        DefenseError: where the settings make no sense.
    """
    selected = select(profile.modules, by)
    modules = profile.adapter.modules
    removed = {name: modules[name]._replace(B=torch.zeros_like(modules[name].B)) for name in selected}
    safer = replace(profile.adapter, modules={**modules, **removed})
    return Realigned(safer, "drop", dict(by), selected, profile.inputs)


def scale(adapter: Adapter, factor: float) -> Realigned:
    """Multiplies the whole update: dW <- factor dW.

    From 0 to 1 this is the interpolation between the aligned and the fine-tuned weights, WiSE-FT (arXiv 2109.01903).

    Args:
        adapter: the fine-tuned adapter.
        factor: 0 gives the aligned model, 1 the fine-tuned one.

    Raises:
        DefenseError: where the factor is negative.
    """
    if not factor >= 0:
        raise DefenseError(f"factor must be 0 or more, not {factor:g}")
    scaled = {name: update._replace(scaling=factor * update.scaling) for name, update in adapter.modules.items()}
    return Realigned(
        replace(adapter, modules=scaled), "scale", {"factor": factor}, list(scaled), {"finetuned": adapter.digest()}
    )


def resta_instruct(
    adapter: Adapter,
    base: str | Path,
    aligned: str | Path,
    alpha: float,
    rank: int,
    *,
    seed: int = 0,
    report: Report = silent,
) -> Realigned:
    """Adds the alignment to the update once more: dW <- dW + alpha V, with V = W_aligned - W_base.

    RESTA (arXiv 2402.11746) with the safety vector of the instruct model (Farn et al., arXiv 2412.19512). As the result
    is to be an adapter, V is replaced by the nearest matrix of a rank, in the modules that the adapter touches.

    Args:
        adapter: the fine-tuned adapter.
        base: checkpoint folder of the model before its alignment.
        aligned: checkpoint folder of the model that the adapter was trained on.
        alpha: how much of V is added, 0 or more; the papers' best is 0.5.
        rank: rank of the part of V that is added; the adapter's rank grows by it.
        seed: of the randomized SVD.
        report: is told of the progress.

    Raises:
        ModelError: where a checkpoint is broken or of another model.
        DefenseError: where alpha or the rank makes no sense.
    """
    if not alpha >= 0 or rank < 1:
        raise DefenseError(f"alpha must be 0 or more and rank at least 1, not {alpha:g} and {rank}")
    alignment = alignment_of(base, aligned, adapter)

    def add(name: str) -> Factors:
        own = adapter.modules[name]
        U, S, Vh = leading(alignment.of(name), rank, seed)
        return cat(own, Factors(Vh.cpu(), (U * S).cpu(), 1.0), (1.0, alpha))

    with torch.no_grad():
        added = dict(zip(adapter.modules, in_parallel(add, adapter.modules, report), strict=True))
    settings = {"alpha": alpha, "rank": rank, "seed": seed}
    inputs = {"base": str(base), "aligned": str(aligned), "finetuned": adapter.digest()}
    return Realigned(replace(adapter, modules=added), "resta_instruct", settings, list(added), inputs)
