"""LookAhead tuning: previews the start of each answer in the prompt."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal, cast

from safecomm.data.rows import Example
from safecomm.defenses.defense import TrainingDefense
from safecomm.defenses.space import Whole, within

PREVIEW = "{prompt}\n\nThe answer begins with: {start}"


class LookAhead(TrainingDefense):
    """Show the start of each answer in the training prompt (LookAhead tuning, Liu et al., arXiv 2503.19041).

    A model that is shown how an answer starts need not learn it, so its own first tokens, in which a refusal begins,
    change less. The prompts of the evaluation stay as they are. Unlike in the paper, the length is in words and not in
    tokens, because the data are prepared before a tokenizer is loaded, and the sentence that introduces the preview is
    our own.
    """

    name: ClassVar[str] = "look_ahead"

    preview: Literal["true", "virtual"] = "true"
    """`true`: the answer's own first words. `virtual`: a fixed opening, which also comes before every answer."""
    words: Annotated[Whole, within(1, 100)] = 6
    """Words of a true preview."""
    opening: str = "Let's solve this problem."
    """The opening of a virtual preview."""

    def data(self, examples: Sequence[Example], safety: Sequence[Example], seed: int) -> Sequence[Example]:
        """Returns the examples with previews."""
        return [self._previewed(example) for example in examples]

    def _previewed(self, example: Example) -> Example:
        if self.preview == "virtual":
            prompt = PREVIEW.format(prompt=example.prompt, start=self.opening)
            return Example(prompt, f"{self.opening} {example.response}")
        start = " ".join(example.response.split()[: cast(int, self.words)])
        return replace(example, prompt=PREVIEW.format(prompt=example.prompt, start=start))
