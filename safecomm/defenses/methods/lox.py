"""LoX: moves the aligned model further along its alignment before the fine-tune."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, cast

from safecomm.defenses.defense import Need, TrainingDefense
from safecomm.defenses.space import Real, Whole, values_of, within

if TYPE_CHECKING:
    from safecomm.defenses.adapter import Adapter


class Lox(TrainingDefense):
    """Extrapolate the alignment before training (LoX, Perin et al., arXiv 2506.15606).

    Training starts from W_aligned + strength * V_k, so that the alignment is still effective after fine-tuning has
    weakened it. V_k is the matrix of rank k, the number of `directions`, nearest to V = W_aligned - W_base. It is an
    adapter that stays as it is during training; the arm's adapter is the sum of both, and applies to the aligned model.
    An interrupted fine-tune starts again from its first step.

    The default strength is that of the authors' code. That code extrapolates every weight matrix, and uses all of V
    unless a rank is set; here only the modules in `finetune.lora.targets` are extrapolated, by a given number of
    directions.
    """

    name: ClassVar[str] = "lox"
    needs: ClassVar[tuple[Need, ...]] = ("base", "aligned")

    directions: Annotated[Whole, within(1, 256)]
    """Number of leading directions of the alignment; the adapter's rank grows by it."""
    strength: Annotated[Real, within(1e-3, 100)] = 1.0
    """How far to extrapolate; 1 doubles the alignment along these directions."""

    def added_rank(self, rank: int) -> int:
        """Returns the largest rank of the extrapolation."""
        return int(max(values_of(self.directions)))

    def start(self, base: Path, aligned: Path, targets: Sequence[str]) -> "Adapter":
        """Returns the extrapolation as an adapter.

        Raises:
            ModelError: if a checkpoint is broken, or both are of different models or identical.
        """
        from safecomm.defenses.full_weights import extract_lora

        kinds = sorted({target.rpartition(".")[2] for target in targets})
        alignment = extract_lora(aligned, base, cast(int, self.directions), targets=kinds).adapter
        strength = cast(float, self.strength)
        return replace(
            alignment,
            modules={
                name: factors._replace(scaling=strength * factors.scaling)
                for name, factors in alignment.modules.items()
            },
        )
