"""Answered questions are not sent again; failed ones are."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pandas as pd
import pytest
from serving_helpers import PROTOCOL

from safecomm.data.rows import Prompt
from safecomm.errors import UnansweredError
from safecomm.judging.judges import PhraseJudge
from safecomm.judging.verdicts import judged
from safecomm.serving.engine import Question
from safecomm.serving.responses import Questions, Responses, answers_of
from safecomm.serving.stream import ID
from safecomm.storage.store import Store


class Model:
    """Answers and records its questions; a prompt may fail a few times first."""

    def __init__(self, failing: str = "", times: int = 99) -> None:
        self.asked: list[list[str]] = []
        self.failing, self.times = failing, times

    def __call__(self, questions: Questions) -> list[pd.DataFrame]:
        self.asked.append([question["messages"][-1]["content"] for question in questions.values()])
        failing = self.failing if len(self.asked) <= self.times else ""
        return [pd.DataFrame([self._answer(name, question, failing)]) for name, question in questions.items()]

    def _answer(self, name: str, question: Question, failing: str) -> dict[str, object]:
        text = question["messages"][-1]["content"]
        scores = [0.5, 0.1] if question["options"] else []
        error = "TimeoutError" if text == failing else ""
        return {ID: name, "response": f"Sure: {text}", "scores": scores, "finish_reason": "stop", "error": error}


def harm(*texts: str) -> dict[str, Question]:
    return PROTOCOL.questions([Prompt("own", "red_team", text) for text in texts])


def test_only_missing_answers_are_requested(tmp_path: Path) -> None:
    model, inputs = Model(), {"model": "m", "adapter": ""}
    Responses(Store(tmp_path), inputs).of(harm("a", "b"), model)
    rows = Responses(Store(tmp_path), inputs).of(harm("b", "c", "a"), model)
    assert model.asked == [["a", "b"], ["c"]]
    assert sorted(rows["response"]) == ["Sure: a", "Sure: b", "Sure: c"]
    assert rows[ID].is_monotonic_increasing
    assert Responses(Store(tmp_path), inputs).missing(harm("a", "d")) == harm("d")


def test_another_protocol_has_its_own_answers(tmp_path: Path) -> None:
    model = Model()
    Responses(Store(tmp_path), {"model": "m", "adapter": ""}).of(harm("a"), model)
    Responses(Store(tmp_path), {"model": "m", "adapter": "other"}).of(harm("a"), model)
    assert model.asked == [["a"], ["a"]]


def test_a_failed_prompt_is_retried_immediately_and_the_others_are_not(tmp_path: Path) -> None:
    model = Model(failing="b", times=1)
    rows = Responses(Store(tmp_path), {}).of(harm("a", "b"), model)
    assert model.asked == [["a", "b"], ["b"]]
    assert (rows["error"] == "").all() and not rows[ID].duplicated().any()


def test_a_prompt_that_fails_every_attempt_is_an_error_and_never_a_result(tmp_path: Path) -> None:
    responses, model = Responses(Store(tmp_path), {}), Model(failing="b")
    with pytest.raises(UnansweredError, match=r"1 of 2 questions got no answer in 3 attempts.*: TimeoutError$"):
        responses.of(harm("a", "b"), model)
    assert model.asked == [["a", "b"], ["b"], ["b"]]
    again = Model()
    assert (responses.of(harm("a", "b"), again)["error"] == "").all()
    assert again.asked == [["b"]]


def test_stored_answers_are_judged_like_new_ones(tmp_path: Path) -> None:
    prompts = [
        Prompt("own", "red_team", "a"),
        Prompt("own", "over_refusal", "b"),
        Prompt("own", "task", "c", options=("A", "B"), answer=0),
        Prompt("own", "task", "d", reference="5", grading="boxed-number"),
    ]
    responses, model = Responses(Store(tmp_path), {}), Model()

    def verdicts() -> dict[str, str]:
        rows = PROTOCOL.rows(prompts, responses.of(PROTOCOL.questions(prompts), model))
        return dict(judged(rows, [PhraseJudge("refusal")]).set_index("text")["verdict"])

    fresh, kept = verdicts(), verdicts()
    assert fresh == kept == {"a": "unsafe", "b": "answered", "c": "right", "d": "wrong"}
    assert len(model.asked) == 1


def test_models_with_the_same_contents_are_evaluated_once(tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def ask(missing: Mapping[str, Questions]) -> Iterator[tuple[str, pd.DataFrame]]:
        asked.append(sorted(missing))
        return ((name, rows) for name, questions in missing.items() for rows in Model()(questions))

    one, twin, other = (Responses(Store(tmp_path), {"adapter": content}) for content in ("x", "x", "y"))
    found = answers_of({"one": one, "twin": twin, "other": other}, harm("a", "b"), ask)
    assert len(asked) == 1 and len(asked[0]) == 2
    assert found["one"].equals(found["twin"]) and len(found["other"]) == 2


def test_answers_are_stored_while_others_are_pending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safecomm.serving.responses.KEEP_SECONDS", 0.0)

    def dying(questions: Questions) -> Iterator[pd.DataFrame]:
        yield Model()(questions)[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Responses(Store(tmp_path), {}).of(harm("a", "b"), dying)
    again = Model()
    Responses(Store(tmp_path), {}).of(harm("a", "b"), again)
    assert len(again.asked) == 1 and len(again.asked[0]) == 1


def halve(part: Path) -> None:
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])


def alter(part: Path) -> None:
    part.write_bytes(part.read_bytes().replace(b"Sure: a", b"Sure: z"))


def empty(part: Path) -> None:
    part.write_bytes(b"")


@pytest.mark.parametrize("damage", [halve, alter, empty])
def test_only_the_answers_of_a_damaged_file_are_requested_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    store, model = Store(tmp_path), Model()
    Responses(store, {}).of(harm("a"), model)
    (part,) = tmp_path.rglob("*.parquet")
    Responses(store, {}).of(harm("b"), model)
    before = part.read_bytes()
    damage(part)
    assert part.read_bytes() != before
    rows = Responses(store, {}).of(harm("a", "b"), model)
    assert model.asked == [["a"], ["b"], ["a"]]
    assert sorted(rows["response"]) == ["Sure: a", "Sure: b"]
    assert str(part) in caplog.text
    assert list((tmp_path / "scratch").glob(f"damaged-*/{part.name}"))


def test_answers_from_before_file_names_had_digests_are_used_if_readable(tmp_path: Path) -> None:
    store, model = Store(tmp_path), Model()
    Responses(store, {}).of(harm("a"), model)
    (part,) = tmp_path.rglob("*.parquet")
    old = part.rename(part.with_name("0123456789abcdef.parquet"))
    Responses(store, {}).of(harm("a"), model)
    assert model.asked == [["a"]]
    halve(old)
    Responses(store, {}).of(harm("a"), model)
    assert model.asked == [["a"], ["a"]]
