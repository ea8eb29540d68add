"""The versions of the stages: what their keys in the store count of the code that makes them."""

VERSIONS = {
    "finetune": 4,
    "profile": 4,
    "realign": 4,
    "responses": 5,  # 5: `engine: transformers` ignores the sampling settings of a model's generation_config.json
    "replies": 1,  # 1: verdict words are compared by the sums of their log-probabilities
    "evaluation": 1,  # 1: splits and intervals by cluster of prompts
    "judges": 1,
}
"""Raise a stage's version when a change to its code gives other results for the same inputs; never lower one.

Only that stage and those that build on it are made again:

- `finetune`: the training, or the mixing of its data. Everything is trained and measured again.
- `profile`: the alignment profile. Realigned adapters that use it follow.
- `realign`: the defenses that act on an adapter.
- `responses`: how a model is asked, or its answer read: chat template, sampling, likelihoods of options.
- `replies`: how a judge or grader that is a model is asked.
- `evaluation`: verdicts on answers that are in the store: phrase lists, graders, how a judge's reply is read; the
  clusters of prompts.
- `judges`: how judges are measured on labelled responses.
"""


def version(*stages: str) -> int:
    """Returns the version of a stage's output that holds what several stages made: no raise leaves the sum as it is."""
    return sum(VERSIONS[stage] for stage in stages)
