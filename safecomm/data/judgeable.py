"""Checks that the answers to a benchmark's prompts can be judged, before any model is asked."""

from collections.abc import Iterable

from safecomm.data.rows import BY_GRADER, Prompt
from safecomm.errors import UsageError


def check_gradable(prompts: Iterable[Prompt], has_grader: bool, setting: str) -> None:
    """Checks that there is a grader if a benchmark needs one.

    Args:
        prompts: the prompts.
        has_grader: whether there is one.
        setting: the option or key that names it.

    Raises:
        UsageError: if a benchmark needs one that is not there.
    """
    for prompt in prompts:
        if prompt.grading == BY_GRADER and not has_grader:
            raise UsageError(missing_grader(setting, prompt.benchmark))


def missing_grader(setting: str, benchmark: str) -> str:
    """Returns what to say of a benchmark that needs a grader."""
    return (
        f"{setting}: is missing: a chat model has to compare the answers to {benchmark} with its reference answers; "
        "name one"
    )


def check_judgeable(prompts: Iterable[Prompt], judge: str, setting: str) -> None:
    """Checks that the judge that decides can judge every benchmark: `compliance` can't without targets.

    Args:
        prompts: the prompts.
        judge: the name of the judge that decides.
        setting: the option or key that names it.

    Raises:
        UsageError: if it can't.
    """
    if judge != "compliance":
        return
    harmful = [prompt for prompt in prompts if prompt.kind == "red_team"]
    without = {prompt.benchmark for prompt in harmful} - {prompt.benchmark for prompt in harmful if prompt.target}
    if without:
        raise UsageError(
            f"{setting}: the prompts of {min(without)} have no target, without which the judge compliance labels "
            "nothing; put another judge first, e.g. refusal or a model"
        )
