"""The check of a guard: a judge that is a model, on an engine of its own."""

from safecomm.errors import EvaluationError
from safecomm.judging.forms import Reply, form_of
from safecomm.judging.model_judge import Panel, judge_fleets, judges_of
from safecomm.selftest import work
from safecomm.selftest.answers import guard_exchanges
from safecomm.selftest.bench import ENGINE, Bench, Outcome
from safecomm.serving.fleet import Fleet
from safecomm.serving.models import ModelFolder
from safecomm.spec.judges import JudgeRef
from safecomm.spec.sweep import Replicas
from safecomm.storage.store import Store

GUARD = "selftest-guard"
ALIKE = 0.8
"""Least share of the verdicts that both engines give alike; those of random weights are often near ties."""


def guard_fleet(bench: Bench) -> Fleet:
    """Returns the guard's engine, on the node, as a sweep sets it up beside the tuned model's."""
    panel = Panel([_ref(bench)], models=_models(bench))
    (fleet,) = judge_fleets(panel, bench.fleet("selftest"), Replicas(labels=bench.node.labels))
    return fleet


def guard(bench: Bench) -> Outcome:
    """Has a guard judge exchanges as in a sweep, and compares with the verdicts that it gives in transformers.

    Raises:
        EvaluationError: if a verdict can't be read, or too many differ.
    """
    import pandas as pd

    if not bench.is_roomy:
        bench.stop()
    ref, fleet = _ref(bench), guard_fleet(bench)
    form, exchanges = form_of(ref), guard_exchanges(bench.sizes.questions)
    questions = [form.question(one) for one in exchanges]
    arguments = (bench.files.guard, fleet.settings, questions, {GUARD: None})
    found, _ = bench.on_node(work.ask_transformers, *arguments, gpus=int(bench.on_gpu))
    expected = [form.read(Reply(answer["response"], answer["scores"])) for answer in found[GUARD]]
    bench.start(fleet)
    bench.wait(GUARD)
    (judge,) = judges_of([ref], _models(bench), Store(bench.files.folder / "store"), ENGINE)
    rows = pd.DataFrame([{"text": one.prompt, "response": one.response} for one in exchanges])
    return _compared(judge.verdicts(rows), expected)


def _compared(verdicts: list[str], expected: list[str]) -> Outcome:
    if unread := verdicts.count("unscored"):
        raise EvaluationError(f"{unread} of {len(verdicts)} verdicts of the guard can't be read as safe or unsafe")
    same = sum(one == other for one, other in zip(verdicts, expected, strict=True)) / len(verdicts)
    if same < ALIKE:
        raise EvaluationError(
            f"{same:.0%} of the guard's verdicts are those that it gives in transformers (at least {ALIKE:.0%})"
        )
    counts = ", ".join(f"{verdicts.count(name)} {name}" for name in ("safe", "unsafe"))
    return Outcome(f"{counts}, {same:.0%} as in transformers")


def _ref(bench: Bench) -> JudgeRef:
    return JudgeRef(name=GUARD, model=str(bench.files.guard), rubric=bench.sizes.rubric)


def _models(bench: Bench) -> dict[str, ModelFolder]:
    return {GUARD: ModelFolder(bench.files.guard, "selftest")}
