"""vLLM replicas behind Ray Serve answer what Ray Data streams to them, each request with its own adapter."""

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
from evaluate_helpers import SETTINGS, questions

from safecomm.data.rows import Prompt
from safecomm.errors import EvaluationError
from safecomm.evaluate.fleet import DEPLOYMENT, TARGET, Fleet, app_of, stop_fleet, wait_for_fleet
from safecomm.evaluate.judges import PhraseJudge
from safecomm.evaluate.stream import stream
from safecomm.evaluate.suite import questions_of, with_answers
from safecomm.evaluate.transformers_engine import TransformersEngine
from safecomm.evaluate.verdicts import judged

JUDGES = [PhraseJudge("compliance"), PhraseJudge("refusal")]
pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.slow]


@pytest.fixture(scope="module")
def fleet(ray_session: None, lab: dict[str, Path]) -> Iterator[None]:
    Fleet("vllm", str(lab["aligned"]), SETTINGS, replicas=1, on_gpu=False).start()
    wait_for_fleet(300)
    yield
    stop_fleet()


@pytest.fixture(scope="module")
def evaluated(fleet: None, adapters: list[str], prompts: tuple[Prompt, ...]) -> dict[str, pd.DataFrame]:
    """Answers of the bare model and of the adapters, all streamed at the same time."""

    def evaluate(adapter: str | None) -> pd.DataFrame:
        return judged(with_answers(prompts, stream(questions_of(prompts), adapter)), JUDGES)

    names = ("bare", "first", "second", "third", "fourth")
    with ThreadPoolExecutor(len(names)) as pool:
        return dict(zip(names, pool.map(evaluate, [None, *adapters]), strict=True))


def test_every_prompt_is_answered_and_labelled_once(
    evaluated: dict[str, pd.DataFrame], prompts: tuple[Prompt, ...]
) -> None:
    for rows in evaluated.values():
        assert sorted(rows["prompt_id"]) == sorted(prompt.prompt_id for prompt in prompts)
        assert (rows["error"] == "").all()
        assert set(rows.loc[rows["kind"] == "red_team", "verdict"]) <= {"safe", "unsafe", "unscored"}
        assert set(rows.loc[rows["kind"] == "red_team", "verdict@refusal"]) <= {"safe", "unsafe", "unscored"}
        assert set(rows.loc[rows["kind"] == "telecom", "verdict"]) <= {"right", "wrong"}


def test_adapters_at_once_give_each_its_own_answers(evaluated: dict[str, pd.DataFrame]) -> None:
    texts = {name: tuple(rows.loc[rows["kind"] != "telecom", "response"]) for name, rows in evaluated.items()}
    assert len(set(texts.values())) == len(texts)


def test_the_bare_model_stays_bare_beside_adapters(
    evaluated: dict[str, pd.DataFrame], adapters: list[str], prompts: tuple[Prompt, ...]
) -> None:
    from ray import serve

    replica = serve.get_deployment_handle(DEPLOYMENT, app_of(TARGET)).options(stream=True, method_name="answer")

    def ask(adapter: str | None) -> Iterator[dict[str, str]]:
        asked: Iterator[dict[str, str]] = replica.remote(
            {"body": json.dumps({"adapter": adapter, "questions": questions(prompts)})}
        )
        return asked

    (alone,) = ask(None)
    bare, _ = [list(answers) for answers in (ask(None), ask(adapters[0]))]
    assert bare == [alone]


def test_vllm_answers_and_compares_as_transformers_does(
    evaluated: dict[str, pd.DataFrame], lab: dict[str, Path], adapters: list[str], prompts: tuple[Prompt, ...]
) -> None:
    engine = TransformersEngine(str(lab["aligned"]), SETTINGS)
    for name, adapter in (("bare", None), ("first", adapters[0])):
        rows = evaluated[name].set_index("prompt_id")
        answers = asyncio.run(engine.answer(questions(prompts), adapter))
        same = 0
        for prompt, answer in zip(prompts, answers, strict=True):
            row = rows.loc[prompt.prompt_id]
            if prompt.options:
                assert list(row["scores"]) == pytest.approx(answer["scores"], abs=0.05), prompt
            else:
                same += row["response"] == answer["response"]
        assert same >= 0.9 * sum(not prompt.options for prompt in prompts)  # near ties may fall either way


def test_the_transformers_engine_serves_the_same_stream(
    ray_session: None,
    evaluated: dict[str, pd.DataFrame],
    lab: dict[str, Path],
    adapters: list[str],
    prompts: tuple[Prompt, ...],
) -> None:
    stop_fleet()
    Fleet("transformers", str(lab["aligned"]), SETTINGS, replicas=1, on_gpu=False).start()
    wait_for_fleet(120)
    answers = stream(questions_of(prompts), adapters[0])
    rows = judged(with_answers(prompts, answers), JUDGES).set_index("prompt_id")
    by_vllm = evaluated["first"].set_index("prompt_id")
    assert set(rows.index) == set(by_vllm.index)
    assert (rows["verdict"] == by_vllm.loc[rows.index, "verdict"]).mean() >= 0.9


def test_a_fleet_that_can_not_load_its_model_says_why(ray_session: None, evaluated: object, tmp_path: Path) -> None:
    stop_fleet()
    try:
        Fleet("transformers", str(tmp_path / "no-model"), SETTINGS, replicas=1, on_gpu=False).start()
        with pytest.raises(EvaluationError, match="the engines did not start"):
            wait_for_fleet(120)
    finally:
        stop_fleet()
