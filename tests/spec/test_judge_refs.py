"""A sweep's judges: short names of published models, and required settings."""

import re

import pytest
from pydantic import TypeAdapter, ValidationError

from safecomm.spec.evaluate import Evaluate
from safecomm.spec.judges import Grader, Judge, JudgeRef, RefusalJudge

JUDGE: TypeAdapter[JudgeRef] = TypeAdapter(Judge)
SHOWN = "{prompt} {response}"


def test_short_name_expands_to_a_published_model() -> None:
    ref = JUDGE.validate_python("llama-guard-3")
    assert ref.model == "meta-llama/Llama-Guard-3-8B" and ref.runs_here
    assert JUDGE.validate_python("refusal").model is None


def test_known_judge_accepts_another_copy_of_its_model() -> None:
    ref = JUDGE.validate_python({"name": "wildguard", "model": "/models/wildguard", "template": "t.txt"})
    assert (ref.model, ref.form) == ("/models/wildguard", "wildguard")
    assert ref.template is not None and ref.template.startswith("/")


def test_model_behind_a_url_needs_no_engines() -> None:
    assert not JUDGE.validate_python({"name": "own", "model": "m", "url": "http://host/v1", "rubric": SHOWN}).runs_here


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("nobody", "there is no judge 'nobody'"),
        ({"name": "own"}, "every other judge needs one"),
        ({"name": "refusal", "model": "m"}, "take no `model:`"),
        ("harmbench", "needs `template:`"),
        ({"name": "own", "model": "m", "template": "t"}, "a guard model has its own"),
        ({"name": "own", "model": "m", "rubric": "{prompt}"}, "lacks {response}"),
        ("shieldgemma", "needs `rubric:`, the guideline"),
        ("gpt-oss-safeguard", "needs `rubric:`, the policy"),
        ({"name": "qwen3guard", "rubric": SHOWN}, "either rubric or form"),
        (
            {"name": "own", "model": "m", "url": "http://me:secret@host/v1"},
            "set the environment variable OPENAI_API_KEY",
        ),
        ({"name": "own", "model": "m", "form": "harmbench", "template": "t", "rubric": SHOWN}, "either rubric or form"),
    ],
)
def test_incomplete_judges_are_rejected(value: object, said: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(said)):
        JUDGE.validate_python(value)


def test_a_judge_of_refusals_needs_a_model_and_keeps_other_sweeps_keys() -> None:
    with pytest.raises(ValidationError, match=r"lacks \{prompt\}"):
        RefusalJudge(model="m", rubric="{response}")
    with pytest.raises(ValidationError, match="set `model:` to the chat model"):
        RefusalJudge()
    without = Evaluate(red_team=["lab-harm"], task=["lab-telecom"])
    assert "refusal_judge" not in without.model_dump()
    judged = Evaluate(red_team=["lab-harm"], task=["lab-telecom"], refusal_judge={"model": "lab://guard"})
    assert judged.judge_models == {"refusal_judge": "lab://guard"} and "refusal_judge" in judged.model_dump()


def test_grader_needs_a_model_and_the_reference() -> None:
    with pytest.raises(ValidationError, match=r"lacks \{reference\}"):
        Grader(model="m", rubric="{response}")
    with pytest.raises(ValidationError, match="set `model:` to the chat model"):
        Grader()
