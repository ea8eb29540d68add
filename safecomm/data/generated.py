"""The lab's sets, which safecomm generates instead of reading (see safecomm/lab/datasets.py)."""

from safecomm.data.rows import Example, Loaded, Prompt


def telecom_examples() -> Loaded[Example]:
    """Returns the lab's telecom training set."""
    from safecomm.lab import datasets

    return Loaded(datasets.telecom_examples())


def telecom_prompts() -> Loaded[Prompt]:
    """Returns the lab's telecom questions."""
    from safecomm.lab import datasets

    return Loaded(datasets.telecom_prompts())


def safety_examples() -> Loaded[Example]:
    """Returns the lab's harmful requests with refusals."""
    from safecomm.lab import datasets

    return Loaded(datasets.safety_examples())


def harm_prompts() -> Loaded[Prompt]:
    """Returns the lab's harmful requests for the test."""
    from safecomm.lab import datasets

    return Loaded(datasets.harm_prompts())


def borderline_prompts() -> Loaded[Prompt]:
    """Returns the lab's harmless requests that look harmful."""
    from safecomm.lab import datasets

    return Loaded(datasets.borderline_prompts())
