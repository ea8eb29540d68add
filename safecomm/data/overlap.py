"""Finds benchmark prompts that are also in the training data, word for word or nearly so.

A prompt counts as contained in a training row if most of its runs of `RUN` words occur in the row, as in the n-gram
decontamination of language model evaluations (Brown et al., arXiv 2005.14165, appendix C). Rows are compared one by
one, because templates share runs across many rows.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from safecomm.data.rows import Example, Prompt
from safecomm.data.splits import normalised

RUN = 5
"""Words per run; shorter prompts are compared as a whole."""
CONTAINED = 0.9
"""Share of a prompt's runs in one training row from which the prompt counts as contained."""


def contained(prompts: Sequence[Prompt], examples: Iterable[Example]) -> set[str]:
    """Returns the ids of the prompts that a training row contains.

    Args:
        prompts: benchmark prompts; of multiple-choice questions only the question is compared.
        examples: training rows; their prompts are searched.
    """
    runs = {prompt.prompt_id: _runs(prompt.question or prompt.text) for prompt in prompts}
    holders: dict[str, list[str]] = {}
    for prompt_id, own in runs.items():
        for run in own:
            holders.setdefault(run, []).append(prompt_id)
    found: set[str] = set()
    for example in examples:
        shared = Counter(prompt_id for run in _runs(example.prompt) for prompt_id in holders.get(run, ()))
        found |= {prompt_id for prompt_id, count in shared.items() if count >= CONTAINED * len(runs[prompt_id])}
    return found


def _runs(text: str) -> set[str]:
    words = normalised(text).split()
    return {" ".join(words[at : at + RUN]) for at in range(max(1, len(words) - RUN + 1))}
