"""Asks a sweep's attacker for a few first messages before the search, which one that refuses would make worthless."""

from safecomm.errors import EvaluationError
from safecomm.judging.conversations import first_messages
from safecomm.judging.model_judge import Panel
from safecomm.sweep.stages import Stages

ASKED = 16
"""First messages that are asked for; the conversations about these requests use them again."""


def check_attacker(stages: Stages) -> None:
    """Checks that the attacker of a sweep with conversations is willing to lead some.

    Raises:
        EvaluationError: if it writes none of the first messages that it is asked for.
    """
    evaluate, search = stages.sweep.evaluate, stages.sweep.search
    if evaluate.attacker is None:
        return
    panel = Panel([], attacker=evaluate.attacker, models=stages.judge_models)
    attacker = panel.seated(stages.store, evaluate.engine).attacker
    assert attacker, "the panel has one"
    messages = first_messages(stages.prompts(search.split), attacker, ASKED)
    if messages and not any(messages):
        raise EvaluationError(
            f"evaluate.attacker: {evaluate.attacker.model} refused to write the first message of each of "
            f"{len(messages)} conversations; choose a model that does as it is told, or set a rubric"
        )
