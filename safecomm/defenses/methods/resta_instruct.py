"""RESTA: adds the alignment to the update again."""

from dataclasses import replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

from safecomm.defenses.defense import Need, Realignment, by_name
from safecomm.defenses.space import Real, Seed, Whole, values_of, within

if TYPE_CHECKING:
    from safecomm.defenses.adapter import Adapter, Factors
    from safecomm.defenses.realigned import Realigned
    from safecomm.defenses.threads import Report


class RestaInstruct(Realignment):
    """Add the alignment, W_aligned - W_base, to the update again: a variant of RESTA (arXiv 2402.11746).

    RESTA itself adds another vector: the aligned model minus the same model tuned on unsafe answers.
    """

    name: ClassVar[str] = "resta_instruct"
    needs: ClassVar[tuple[Need, ...]] = ("adapter", "base", "aligned")

    alpha: Annotated[Real, within(0, 10)]
    """Weight of the added alignment; RESTA uses 0.5 for its own vector."""
    rank: Annotated[Whole, within(1, inf)] = 16
    """Rank of the added alignment; it adds to the adapter's rank."""
    seed: Seed = 0
    """Seed for the randomized SVD."""

    def added_rank(self, rank: int) -> int:
        """Returns the rank of the added alignment."""
        return int(max(values_of(self.rank)))

    def apply(self, *subject: Any) -> "Realigned":
        """Returns the adapter with the alignment added."""
        return resta_instruct(*subject, self)


@by_name(RestaInstruct)
def resta_instruct(
    adapter: "Adapter",
    base: str | Path,
    aligned: str | Path,
    settings: RestaInstruct,
    *,
    report: "Report | None" = None,
) -> "Realigned":
    """Adds the alignment to the update again: dW <- dW + alpha V, with V = W_aligned - W_base.

    RESTA (arXiv 2402.11746) with the safety vector of the instruct model (Farn et al., arXiv 2412.19512). So that the
    result is an adapter, V is replaced by its best low-rank approximation, in the modules that the adapter changes.

    Args:
        adapter: the fine-tuned adapter.
        base: checkpoint folder of the model before its alignment.
        aligned: checkpoint folder of the model that the adapter was trained on.
        settings: the settings, as an object or as keyword arguments.
        report: progress callback.

    Raises:
        ModelError: if a checkpoint is broken or of another model.
        DefenseError: if alpha or the rank is invalid.
    """
    import torch

    from safecomm.defenses.adapter import Factors
    from safecomm.defenses.alignment import alignment_of
    from safecomm.defenses.combine import cat
    from safecomm.defenses.low_rank import leading
    from safecomm.defenses.realigned import Realigned
    from safecomm.defenses.threads import in_parallel, silent

    alpha, rank = cast(float, settings.alpha), cast(int, settings.rank)
    alignment = alignment_of(base, aligned, adapter)

    def add(name: str) -> "Factors":
        own = adapter.modules[name]
        U, S, Vh = leading(alignment.of(name), rank, settings.seed)
        return cat(own, Factors(Vh.cpu(), (U * S).cpu(), 1.0), (1.0, alpha))

    with torch.no_grad():
        added = dict(zip(adapter.modules, in_parallel(add, adapter.modules, report or silent), strict=True))
    inputs = {"base": str(base), "aligned": str(aligned), "finetuned": adapter.digest()}
    safer = replace(adapter, modules=added)
    return Realigned(safer, settings.name, settings.constants(), list(added), inputs)
