"""SafeMERGE: merge unsafe modules with those of a safe adapter."""

import zlib
from dataclasses import replace
from typing import Unpack, get_args

from safecomm.defenses.adapter import Adapter, Factors
from safecomm.defenses.alignment import Profile
from safecomm.defenses.combine import BY_FACTOR, PRUNING, Combination, by_factor, cat, svd
from safecomm.defenses.realigned import Realigned
from safecomm.defenses.threads import one_thread
from safecomm.errors import DefenseError, ModelError
from safecomm.statistics.selection import Selection, select


@one_thread()
def safe_merge(
    profile: Profile,
    safe: Adapter,
    weight: float,
    *,
    combine: Combination = "cat",
    density: float | None = None,
    seed: int = 0,
    **by: Unpack[Selection],
) -> Realigned:
    """Merges the update of the selected modules with a safe adapter's: dW <- weight dW_f + (1 - weight) dW_s.

    SafeMERGE (arXiv 2503.17239, eq. 4). Without a way of selecting, all modules are merged: the paper's full merge.

    Limitations: modules that only the safe adapter has stay as the fine-tuned model has them.

    Args:
        profile: the alignment profile of the fine-tuned adapter.
        safe: the adapter tuned on safety data alone, on the same aligned model.
        weight: weight of the fine-tuned adapter, 0 to 1; the safe adapter gets the rest.
        combine: `cat`, that sum, exactly, at rank r_f + r_s; `svd`, the nearest to it of rank r_f; or PEFT's `linear`,
            `dare_linear` or `ties`, which merge the factors and are not that sum.
        density: for `dare_linear` and `ties`: the share of the entries that is kept, above 0, at most 1.
        seed: for `dare_linear`.
        **by: one way of selecting modules; `threshold` selects rho < threshold.

    Raises:
        ModelError: where the safe adapter is empty or not finite, lacks a selected module or has it in another shape,
            or in another rank where the factors are merged.
        DefenseError: where the settings make no sense.
    """
    _check_settings(weight, combine, density)
    safe.check()
    selected = select(profile.modules, by, strict=True) if by else [module.name for module in profile.modules]
    weights = (weight, 1 - weight)
    merged = {}
    for name in selected:
        ours, theirs = _pair(profile.adapter, safe, name, combine)
        if combine == "cat":
            merged[name] = cat(ours, theirs, weights)
        elif combine == "svd":
            merged[name] = svd(ours, theirs, weights)
        else:
            # Modules of one shape would otherwise lose the same entries.
            own_seed = seed + zlib.crc32(name.encode())
            merged[name] = by_factor(combine, ours, theirs, weights, density or 1.0, own_seed)
    return Realigned(
        replace(profile.adapter, modules={**profile.adapter.modules, **merged}),
        "safe_merge",
        {**by, "weight": weight, "combine": combine, "density": density, "seed": seed},
        selected,
        {**profile.inputs, "safe": safe.digest()},
    )


def _check_settings(weight: float, combine: str, density: float | None) -> None:
    if not 0 <= weight <= 1:
        raise DefenseError(f"weight must lie between 0 and 1, not {weight:g}")
    if combine not in get_args(Combination):
        raise DefenseError(f"there is no combination {combine!r}; take one of {', '.join(get_args(Combination))}")
    if (density is not None) != (combine in PRUNING):
        raise DefenseError(f"density is needed for {' and '.join(PRUNING)}, and for them alone; combine is {combine}")
    if density is not None and not 0 < density <= 1:
        raise DefenseError(f"density must lie above 0 and be at most 1, not {density:g}")


def _pair(adapter: Adapter, safe: Adapter, name: str, combine: str) -> tuple[Factors, Factors]:
    """Returns the two adapters' factors of a module, which fit each other."""
    if name not in safe.modules:
        raise ModelError(
            f"{safe.source}: has no update for {name}; train the safe adapter on the modules of {adapter.source}"
        )
    ours, theirs = adapter.modules[name], safe.modules[name]
    if (ours.A.shape[1], ours.B.shape[0]) != (theirs.A.shape[1], theirs.B.shape[0]):
        raise ModelError(
            f"{safe.source}: {name} has another shape than in {adapter.source}; both must adapt the same model"
        )
    if combine in BY_FACTOR and ours.A.shape != theirs.A.shape:
        raise ModelError(
            f"{safe.source}: {name} has rank {theirs.A.shape[0]} and {adapter.source} has rank {ours.A.shape[0]}; "
            f"combine: {combine} needs equal ranks, combine: cat and svd do not"
        )
    return ours, theirs
