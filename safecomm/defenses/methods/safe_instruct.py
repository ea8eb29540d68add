"""SafeInstruct: adds safety examples to the training data."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, cast

from safecomm.data.mixing import mix
from safecomm.data.rows import Example
from safecomm.defenses.defense import Need, TrainingDefense
from safecomm.defenses.space import Real, within


class SafeInstruct(TrainingDefense):
    """Mix safety examples into the task data (Bianchi et al., arXiv 2309.07875)."""

    name: ClassVar[str] = "safe_instruct"
    needs: ClassVar[tuple[Need, ...]] = ("safety_data",)

    ratio: Annotated[Real, within(1e-5, 10)]
    """Safety examples per task example."""

    def data(self, examples: Sequence[Example], safety: Sequence[Example], seed: int) -> Sequence[Example]:
        """Returns the task examples mixed with safety examples."""
        return mix(examples, safety, cast(float, self.ratio), seed).examples
