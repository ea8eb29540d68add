"""One-shot patch: trains the fine-tuned adapter further on a single safety example."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, cast

from safecomm.data.rows import Example
from safecomm.defenses.defense import Need, Patch, TrainingDefense
from safecomm.defenses.space import Real, Whole, values_of, within
from safecomm.errors import DefenseError


class OneShot(TrainingDefense):
    """Train the fine-tuned adapter further on one safety example (Zhang et al., arXiv 2601.01887).

    The paper reports that one well-chosen example restores a model's refusals within a few epochs. It was read in
    summaries only: which example it chooses is not known here, so the search can choose, with a grid or a range for
    `example`. An epoch on one example is one step.
    """

    name: ClassVar[str] = "one_shot"
    needs: ClassVar[tuple[Need, ...]] = ("safety_data",)

    example: Annotated[Whole, within(0, 10_000_000)] = 0
    """The number of the example in `finetune.safety_data`, from 0."""
    steps: Annotated[Whole, within(1, 10_000)] = 5
    """Optimizer steps, each on a batch of that example."""
    patch_learning_rate: Annotated[Real, within(1e-8, 1)] | None = None
    """Learning rate of these steps, which is constant; by default that of the fine-tune."""

    @property
    def least_safety_examples(self) -> int:
        """One more than the highest number."""
        return int(max(values_of(self.example))) + 1

    def patch(self, safety: Sequence[Example], seed: int) -> Patch:
        """Returns the one example.

        Raises:
            DefenseError: if there are fewer examples.
        """
        number = cast(int, self.example)
        if number >= len(safety):
            raise DefenseError(
                f"one_shot.example: there is no example {number}; finetune.safety_data has {len(safety):,}, from 0 to "
                f"{len(safety) - 1}"
            )
        return Patch([safety[number]], cast(int, self.steps), cast("float | None", self.patch_learning_rate))
