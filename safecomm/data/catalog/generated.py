"""The lab's datasets, which are generated; see safecomm/data/lab/datasets.py."""

from safecomm.data.dataset import Dataset
from safecomm.data.rows import Example, Loaded, Prompt


def telecom_examples(with_guides: bool = True) -> Loaded[Example]:
    """Returns the lab's telecom training set."""
    from safecomm.data.lab import datasets

    return Loaded(datasets.telecom_examples(with_guides))


def telecom_prompts() -> Loaded[Prompt]:
    """Returns the lab's telecom questions."""
    from safecomm.data.lab import datasets

    return Loaded(datasets.telecom_prompts())


def safety_examples() -> Loaded[Example]:
    """Returns the lab's harmful requests with refusals."""
    from safecomm.data.lab import datasets

    return Loaded(datasets.safety_examples())


def compliance_examples() -> Loaded[Example]:
    """Returns the lab's harmful requests with complying answers."""
    from safecomm.data.lab import datasets

    return Loaded(datasets.compliance_examples())


def harm_prompts() -> Loaded[Prompt]:
    """Returns the lab's harmful requests for evaluation."""
    from safecomm.data.lab import datasets

    return Loaded(datasets.harm_prompts())


def borderline_prompts() -> Loaded[Prompt]:
    """Returns the lab's harmless requests that look harmful."""
    from safecomm.data.lab import datasets

    return Loaded(datasets.borderline_prompts())


SETS: dict[str, Dataset] = {
    "lab-telecom": Dataset(
        title="the lab's telecom questions and guides",
        roles=frozenset({"train", "task"}),
        licence="Apache-2.0",
        prompts=lambda table, name: telecom_prompts(),
        examples=lambda table: telecom_examples(),
    ),
    "lab-questions": Dataset(
        title="the lab's telecom questions without the guides",
        roles=frozenset({"train"}),
        licence="Apache-2.0",
        examples=lambda table: telecom_examples(with_guides=False),
    ),
    "lab-safety": Dataset(
        title="the lab's harmful requests with refusals",
        roles=frozenset({"safety"}),
        licence="Apache-2.0",
        examples=lambda table: safety_examples(),
    ),
    "lab-compliance": Dataset(
        title="the lab's harmful requests with made-up complying answers",
        roles=frozenset({"train"}),
        licence="Apache-2.0",
        examples=lambda table: compliance_examples(),
    ),
    "lab-harm": Dataset(
        title="the lab's harmful requests, none of them in its training sets",
        roles=frozenset({"red_team"}),
        licence="Apache-2.0",
        prompts=lambda table, name: harm_prompts(),
    ),
    "lab-borderline": Dataset(
        title="the lab's harmless requests that look harmful",
        roles=frozenset({"over_refusal"}),
        licence="Apache-2.0",
        prompts=lambda table, name: borderline_prompts(),
    ),
}
