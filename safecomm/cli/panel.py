"""Judges as the command line names them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from safecomm.errors import UsageError
from safecomm.spec.judges import Grader, Judge, JudgeRef, RefusalJudge
from safecomm.statistics.domain import TELECOM, Domain
from safecomm.storage.input_files import is_regular

if TYPE_CHECKING:
    from safecomm.judging.model_judge import Panel
    from safecomm.storage.store import Store


def judges_named(given: Sequence[str]) -> list[JudgeRef]:
    """Parses judges like a sweep does.

    Raises:
        UsageError: if one is not a judge, or a name is used twice.
    """
    from safecomm.spec.file import parse_yaml

    refs: list[JudgeRef] = []
    for text in given:
        name, equals, model = text.partition("=")
        try:
            value = {"name": name, "model": model} if equals else text
            in_braces = text.lstrip().startswith("{")
            ref: JudgeRef = TypeAdapter(Judge).validate_python(parse_yaml(text) if in_braces else value)
        except ValidationError as error:
            problems = "; ".join(str(problem["msg"]).removeprefix("Value error, ") for problem in error.errors())
            raise UsageError(f"--judge {text}: {problems}") from error
        except ValueError as error:
            raise UsageError(
                f"--judge {text}: is not valid YAML; write it as '{{name: NAME, model: MODEL}}'"
            ) from error
        if ref.template and not is_regular(Path(ref.template).expanduser()):
            raise UsageError(f"--judge {ref.name}: template: {ref.template}: there is no such file")
        if ref.name in [other.name for other in refs]:
            raise UsageError(f"--judge {text}: there is already a judge {ref.name}; use each name once")
        refs.append(ref)
    return refs


def judge_models(refs: Sequence[JudgeRef], grader: str | None, refusal_judge: str | None) -> dict[str, str]:
    """Returns option -> model of the judges for which engines run here."""
    named = {f"--judge {ref.name}": ref.model for ref in refs if ref.runs_here}
    named |= {"--grader": grader, "--refusal-judge": refusal_judge}
    return {option: model for option, model in named.items() if model}


def panel_of(
    judges: Sequence[JudgeRef],
    store: "Store",
    grader: str | None = None,
    refusal_judge: str | None = None,
    domain: Domain = TELECOM,
) -> "Panel":
    """Returns the judges with their models, which are downloaded if necessary.

    Args:
        judges: the judges of answers to harmful prompts.
        store: the store of the models.
        grader: the model that compares answers with reference answers.
        refusal_judge: the model that judges refusals.
        domain: what the questions to grade are about.
    """
    from safecomm.judging.model_judge import Panel
    from safecomm.serving.models import resolve_model

    panel = Panel(
        judges,
        Grader(model=grader).told_of(domain) if grader else None,
        RefusalJudge(model=refusal_judge) if refusal_judge else None,
    )
    models = {ref.name: resolve_model(ref.model, store) for ref in panel.everyone if ref.model and ref.runs_here}
    return replace(panel, models=models)
