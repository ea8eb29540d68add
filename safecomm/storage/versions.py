"""The versions of the stages' code, which are part of their store keys."""

VERSIONS = {
    "finetune": 4,
    "profile": 4,
    "realign": 4,
    "responses": 4,
    "replies": 0,
    "evaluation": 0,
    "judges": 1,
}
"""Raise a stage's version when a code change gives other results for the same inputs; never lower one.

Only that stage and the stages that depend on it are computed again:

- `finetune`: training, or mixing of the training data. Everything is trained and measured again.
- `profile`: the alignment profile, and then the adapters that depend on it.
- `realign`: the defenses that act on an adapter.
- `responses`: prompting a model and reading its answers: chat template, sampling, likelihoods of options.
- `replies`: prompting a judge model or grader.
- `evaluation`: verdicts on stored answers: phrase lists, graders, parsing of judges' replies.
- `judges`: measuring judges on labelled responses.
"""


def version(*stages: str) -> int:
    """Returns the version of an output that depends on several stages: the sum, which every raise changes."""
    return sum(VERSIONS[stage] for stage in stages)
