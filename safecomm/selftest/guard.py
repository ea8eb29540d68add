"""The check of a guard: a judge that is a model, on its own engine."""

from safecomm.errors import EvaluationError
from safecomm.judging.forms import Reply, form_of
from safecomm.judging.model_judge import Panel, judge_fleets, judges_of
from safecomm.selftest import work
from safecomm.selftest.answers import guard_exchanges
from safecomm.selftest.bench import ENGINE, Bench, Outcome
from safecomm.serving.fleet import Fleet
from safecomm.serving.models import ModelFolder
from safecomm.spec.cluster import Replicas
from safecomm.spec.judges import JudgeRef
from safecomm.storage.store import Store

GUARD = "selftest-guard"
ALIKE = 0.8
"""The minimum share of equal verdicts of both engines; those of random weights are often near ties."""


def guard_fleet(bench: Bench) -> Fleet:
    """Returns the guard's fleet on the node, with the same settings as in a sweep."""
    panel = Panel([_ref(bench)], models=_models(bench))
    (fleet,) = judge_fleets(panel, bench.fleet("selftest"), Replicas(labels=bench.node.labels))
    return fleet


def guard(bench: Bench) -> Outcome:
    """Judges exchanges with a guard as in a sweep, and compares the verdicts with those from transformers.

    Raises:
        EvaluationError: if a verdict can't be parsed, or too many differ.
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
    if unscored := verdicts.count("unscored"):
        raise EvaluationError(f"{unscored} of the guard's {len(verdicts)} verdicts are neither safe nor unsafe")
    same = sum(one == other for one, other in zip(verdicts, expected, strict=True)) / len(verdicts)
    if same < ALIKE:
        raise EvaluationError(
            f"{same:.0%} of the guard's verdicts agree with those from transformers (minimum {ALIKE:.0%})"
        )
    counts = ", ".join(f"{verdicts.count(name)} {name}" for name in ("safe", "unsafe"))
    return Outcome(f"{counts}; {same:.0%} agree with transformers")


def _ref(bench: Bench) -> JudgeRef:
    return JudgeRef(name=GUARD, model=str(bench.files.guard), rubric=bench.sizes.rubric)


def _models(bench: Bench) -> dict[str, ModelFolder]:
    return {GUARD: ModelFolder(bench.files.guard, "selftest")}
