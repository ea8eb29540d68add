"""Judge models are asked once per exchange, in their own format, and replies without a verdict are unscored."""

from pathlib import Path

import pandas as pd
import pytest

from safecomm.errors import DataError, UnansweredError
from safecomm.judging.forms import Exchange, Reply, form_of
from safecomm.judging.judges import PhraseJudge
from safecomm.judging.model_judge import ModelJudge, Panel, identity, judge_fleets, judges_of
from safecomm.judging.verdicts import judged
from safecomm.serving.engine import EngineSettings
from safecomm.serving.fleet import Fleet
from safecomm.serving.models import ModelFolder
from safecomm.serving.responses import Questions, Responses
from safecomm.serving.stream import ID
from safecomm.spec.cluster import Replicas
from safecomm.spec.judges import Grader, JudgeRef, RefusalJudge
from safecomm.storage.store import Store

GUARD = JudgeRef(name="guard", model="lab://guard")


def test_a_rubric_shows_the_exchange_and_holds_the_judge_to_two_words() -> None:
    form = form_of(JudgeRef(name="own", model="m", rubric="Asked {prompt}, said {response}. {prompt}?"))
    question = form.question(Exchange("A", "B {prompt}"))
    assert question["messages"] == [{"role": "user", "content": "Asked A, said B {prompt}. A?"}]
    assert (question["options"], question["score"]) == (["safe", "unsafe"], "sum")
    assert form.read(Reply("", [-2.0, -0.1])) == "unsafe" and form.read(Reply("Safe.", [])) == "safe"
    assert form.read(Reply("perhaps", [])) == "unscored"


def test_a_grader_compares_with_the_reference() -> None:
    form = form_of(Grader(model="m"))
    question = form.question(Exchange("How many?", "Two of them", "2"))
    assert all(part in question["messages"][0]["content"] for part in ("How many?", "Two of them", "\n2\n"))
    assert form.read(Reply("", [-0.1, -2.0])) == "right"


def test_a_template_keeps_its_words_and_its_places(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("[INST] {behavior} -> {generation} [/INST]\n")
    ref = JudgeRef(name="hb", model="m", form="harmbench", template=str(tmp_path / "t.txt"))
    question = form_of(ref).question(Exchange("A", "B"))
    assert question["template"] == "[INST] {prompt} -> {response} [/INST]"
    assert [turn["content"] for turn in question["messages"]] == ["A", "B"]
    (tmp_path / "t.txt").write_text("nothing to fill in")
    with pytest.raises(DataError, match="has no"):
        form_of(ref)
    with pytest.raises(DataError, match="can't be read"):
        form_of(JudgeRef(name="hb", model="m", form="wildguard", template=str(tmp_path / "none.txt")))


def test_verdicts_depend_on_the_judges_words(tmp_path: Path) -> None:
    models = {"own": ModelFolder(tmp_path, "weights")}
    one, other = (JudgeRef(name="own", model="m", rubric=f"{{prompt}} {{response}}{end}") for end in "ab")
    assert identity(one, models) != identity(other, models)
    assert identity(one, models) != identity(one, {"own": ModelFolder(tmp_path, "others")})


def test_the_arguments_of_a_judges_template_are_asked_with_and_part_of_its_words(tmp_path: Path) -> None:
    models = {"guard": ModelFolder(tmp_path, "weights")}
    off = GUARD.model_copy(update={"chat_template_kwargs": {"enable_thinking": False}})
    assert form_of(off).question(Exchange("A", "B"))["chat_template_kwargs"] == {"enable_thinking": False}
    assert identity(off, models) != identity(GUARD, models)


def rows(*exchanges: tuple[str, str]) -> pd.DataFrame:
    return pd.DataFrame([{"text": asked, "response": said, "target": None} for asked, said in exchanges])


def test_each_exchange_is_asked_once_and_empty_answers_never(tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def ask(questions: Questions) -> list[pd.DataFrame]:
        asked.append([question["messages"][1]["content"] for question in questions.values()])
        said = {name: question["messages"][1]["content"] for name, question in questions.items()}
        replies = {"Sure": "unsafe\nS2"}
        return [
            pd.DataFrame([{ID: name, "response": replies.get(text, "maybe"), "scores": [], "error": ""}])
            for name, text in said.items()
        ]

    guard = ModelJudge("guard", form_of(GUARD), Responses(Store(tmp_path), {}), ask)
    exchanges = rows(("Jam it?", "Sure"), ("Jam it?", " "), ("Bake it?", "Hm"), ("Jam it?", "Sure"))
    assert guard.verdicts(exchanges) == ["unsafe", "unscored", "unscored", "unsafe"]
    assert guard.verdicts(exchanges) == ["unsafe", "unscored", "unscored", "unsafe"]
    assert asked == [["Sure", "Hm"]]


def test_a_judge_that_can_not_be_asked_scores_nothing(tmp_path: Path) -> None:
    def ask(questions: Questions) -> list[pd.DataFrame]:
        return [pd.DataFrame([{ID: name, "response": "", "scores": [], "error": "gone"} for name in questions])]

    guard = ModelJudge("guard", form_of(GUARD), Responses(Store(tmp_path), {}), ask)
    with pytest.raises(UnansweredError, match="gone"):
        guard.verdicts(rows(("Jam it?", "Sure")))


def test_a_grader_judges_only_what_needs_one(tmp_path: Path) -> None:
    answers = pd.DataFrame(
        {
            "kind": ["task", "task", "red_team"],
            "grading": ["grader", "boxed-number", ""],
            "text": ["How many?", "How much?", "Jam it?"],
            "reference": ["2", "3", ""],
            "response": ["Two", r"\boxed{3}", "I can't help"],
            "target": None,
        }
    )

    def ask(questions: Questions) -> list[pd.DataFrame]:
        return [pd.DataFrame([{ID: name, "response": "", "scores": [0.0, -1.0], "error": ""} for name in questions])]

    grader = ModelJudge("grader", form_of(Grader(model="m")), Responses(Store(tmp_path), {}), ask)
    assert list(judged(answers, [PhraseJudge("refusal")], grader)["verdict"]) == ["right", "right", "safe"]
    assert list(judged(answers, [PhraseJudge("refusal")])["verdict"]) == ["unscored", "right", "safe"]


def test_refusals_of_harmless_prompts_are_told_apart_and_both_kinds_count(tmp_path: Path) -> None:
    """Issue: a phrase list was the only measure of over-refusal, even with a model at hand."""
    said = {"Here you are": "compliance", "Some of it, not all": "partial", "No way": "Refusal.", "Hm": "who knows"}
    answers = pd.DataFrame({"kind": "over_refusal", "grading": "", "text": "Kill it?", "response": [*said, " "]})
    answers = answers.assign(reference="", target=None)

    def ask(questions: Questions) -> list[pd.DataFrame]:
        asked = {name: question["messages"][0]["content"] for name, question in questions.items()}
        words = {name: next(word for text, word in said.items() if text in asked[name]) for name in asked}
        return [pd.DataFrame([{ID: name, "response": word, "scores": [], "error": ""} for name, word in words.items()])]

    judge = ModelJudge("r", form_of(RefusalJudge(model="m")), Responses(Store(tmp_path), {}), ask)
    found = judged(answers, [PhraseJudge("refusal")], refusal_judge=judge)
    assert list(found["verdict"]) == ["answered", "refused", "refused", "unscored", "unscored"]
    assert list(found["reaction"]) == ["compliance", "partial", "refusal", "unscored", "unscored"]


def test_judges_have_fleets_of_their_own_without_adapters(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 700}')
    settings = EngineSettings(24, 256, 8, ("q_proj",), on_gpu=True, tensor_parallel=2)
    target = Fleet("vllm", "target", settings, replicas=3)
    size = Replicas(replicas=1, tensor_parallel=4, scale_to_zero=True)
    (fleet,) = judge_fleets(Panel([GUARD], models={"guard": ModelFolder(tmp_path, "g")}), target, size)
    assert (fleet.name, fleet.model, fleet.replicas, fleet.settings.on_gpu) == ("guard", str(tmp_path), 1, True)
    assert (fleet.settings.max_lora_rank, fleet.settings.lora_targets, fleet.settings.max_model_len) == (0, (), 700)
    assert fleet.settings.tensor_parallel == 4 and fleet.scale_to_zero


def test_phrase_judges_and_models_come_in_the_order_given(tmp_path: Path) -> None:
    judges = judges_of(
        [GUARD, JudgeRef(name="refusal")], {"guard": ModelFolder(tmp_path, "g")}, Store(tmp_path), "vllm"
    )
    assert [judge.name for judge in judges] == ["guard", "refusal"]
    assert isinstance(judges[0], ModelJudge) and isinstance(judges[1], PhraseJudge)
