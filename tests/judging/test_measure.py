"""Stage versions: raising one reruns that stage and the stages that depend on it."""

from pathlib import Path

import pandas as pd
import pytest

from safecomm.data.rows import Prompt
from safecomm.judging.measure import Measurement, Subject, measure
from safecomm.judging.model_judge import Panel
from safecomm.serving.models import ModelFolder
from safecomm.serving.protocol import EvaluationProtocol
from safecomm.spec.judges import JudgeRef
from safecomm.storage.store import Store, digest
from safecomm.storage.versions import VERSIONS, version

PROMPTS = (Prompt("own", "red_team", "Jam it?"), Prompt("own", "over_refusal", "Tune it?"))
PROTOCOL = EvaluationProtocol("vllm", max_new_tokens=12, max_model_len=128)
ANSWER = "Sure, here is how you do it: first open the door."
TUNED = Subject(Path("adapter"), "content")


def measurement(store: Path, *judges: str) -> Measurement:
    panel = Panel([JudgeRef(name=name) for name in judges or ("refusal",)])
    return Measurement(ModelFolder(store, "identity"), PROMPTS, panel, PROTOCOL, Store(store))


def test_answers_are_shared_by_all_that_judge_them_and_kept_apart_by_adapter(tmp_path: Path) -> None:
    one, other = measurement(tmp_path), measurement(tmp_path, "compliance")
    assert one.responses(TUNED).lock == other.responses(TUNED).lock != one.responses(Subject()).lock
    assert one.key(TUNED) != other.key(TUNED)


@pytest.mark.parametrize(
    ("stage", "answers_stay", "verdicts_stay"),
    [
        *[(name, True, True) for name in ("finetune", "profile", "realign", "judges")],
        *[(name, True, False) for name in ("evaluation", "replies", "surprisal")],
        ("responses", False, False),
    ],
)
def test_a_raised_version_asks_and_judges_again_only_what_it_concerns(
    stage: str, answers_stay: bool, verdicts_stay: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = measurement(tmp_path)
    answers, verdicts = made.responses(TUNED).lock, made.key(TUNED)
    monkeypatch.setitem(VERSIONS, stage, VERSIONS[stage] + 1)
    assert (made.responses(TUNED).lock == answers) is answers_stay
    assert (made.key(TUNED) == verdicts) is verdicts_stay


def test_two_raises_never_give_a_version_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [version("responses", "replies", "evaluation")]
    for stage in ("evaluation", "responses", "replies", "responses", "evaluation"):
        monkeypatch.setitem(VERSIONS, stage, VERSIONS[stage] + 1)
        seen.append(version("responses", "replies", "evaluation"))
    assert len(set(seen)) == len(seen)


def test_with_every_answer_and_its_surprisal_kept_no_fleet_is_started(tmp_path: Path) -> None:
    made = measurement(tmp_path)
    answers = [{"question_id": name, "response": ANSWER, "scores": [], "error": ""} for name in made.questions]
    readings = [{"question_id": digest([one.text, ANSWER]), "scores": [-0.5], "error": ""} for one in PROMPTS]
    for subject in (Subject(), TUNED):
        made.responses(subject).keep(pd.DataFrame(answers))
        made.readings(subject).keep(pd.DataFrame(readings))
    subjects = {"bare": Subject(), "tuned": TUNED}
    rows = measure(made, subjects, start=lambda: pytest.fail("a fleet was started"))
    assert list(rows) == list(subjects)
    for table in rows.values():
        assert sorted(table["verdict"]) == ["answered", "unsafe"]
        assert table["surprisal"].tolist() == [0.5, 0.5]
