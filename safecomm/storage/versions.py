"""The versions of the stages' code, which are part of their store keys."""

VERSIONS = {
    "finetune": 4,
    "loss": 1,  # 1: the logits that a training defense's loss gets have gradients
    "profile": 4,
    "realign": 4,
    "moments": 1,
    "start": 1,
    "responses": 5,  # 5: `engine: transformers` ignores the sampling settings of a model's generation_config.json
    "replies": 1,  # 1: verdict words are compared by the sums of their log-probabilities
    "surprisal": 1,
    "evaluation": 1,  # 1: splits and intervals by cluster of prompts
    "judges": 1,
}
"""Raise a stage's version when a code change gives other results for the same inputs; never lower one.

Only that stage and the stages that depend on it are computed again:

- `finetune`: training, or mixing of the training data. Everything is trained and measured again.
- `loss`: training with a defense that changes the loss; other fine-tunes keep their keys.
- `profile`: the alignment profile, and then the adapters that depend on it.
- `realign`: the defenses that act on an adapter.
- `moments`: the moments of a model's inputs, and then the adapters that depend on them.
- `start`: the adapters that defenses give a fine-tune to start from.
- `responses`: how a model is asked, or its answer read: chat template, sampling, likelihoods of options.
- `replies`: how a judge or grader that is a model is asked.
- `surprisal`: how the aligned model scores an answer's tokens.
- `evaluation`: verdicts on answers that are in the store: phrase lists, graders, how a judge's reply is read; the
  clusters of prompts.
- `judges`: how judges are measured on labelled responses.
"""


def version(*stages: str) -> int:
    """Returns the version of an output that depends on several stages: the sum, which every raise changes."""
    return sum(VERSIONS[stage] for stage in stages)
