"""vLLM replicas behind Ray Serve answer what Ray Data streams to them, each request with its own adapter."""

import asyncio
import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import psutil
import pytest
from evaluate_helpers import SETTINGS, questions

from safecomm.data.rows import Prompt
from safecomm.errors import EvaluationError
from safecomm.evaluate.fleet import DEPLOYMENT, TARGET, Fleet, app_of, stop_fleet, wait_for_fleet
from safecomm.evaluate.guard import guard_fleets, judges_of
from safecomm.evaluate.judges import PhraseJudge
from safecomm.evaluate.responses import Questions, Responses
from safecomm.evaluate.statistics import agreement
from safecomm.evaluate.stream import ID, stream
from safecomm.evaluate.suite import questions_of, with_answers
from safecomm.evaluate.transformers_engine import TransformersEngine
from safecomm.evaluate.verdicts import judged
from safecomm.lab.actions import actions, answered, refused
from safecomm.lab.datasets import harm_prompts
from safecomm.lab.guard import build_guard
from safecomm.lab.words import REQUESTS
from safecomm.models import ModelFolder
from safecomm.store import Store

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


def test_a_killed_engine_costs_no_answer(
    ray_session: None, evaluated: object, lab: dict[str, Path], tmp_path: Path
) -> None:
    stop_fleet()
    prompts = harm_prompts()[:200]
    asked: list[int] = []

    def kill_when_at_work() -> None:
        (engine,) = (
            process
            for process in psutil.Process().children(recursive=True)
            if process.name().startswith(f"ray::ServeReplica:{app_of(TARGET)}")
        )
        idle = engine.cpu_times().user
        while engine.cpu_times().user < idle + 0.3:
            time.sleep(0.01)
        engine.kill()

    def ask(missing: Questions) -> pd.DataFrame:
        wait_for_fleet(120)
        asked.append(len(missing))
        with ThreadPoolExecutor(1) as pool:
            killed = pool.submit(kill_when_at_work) if len(asked) == 1 else None
            answers = stream(missing)
            if killed:
                killed.result()
        return answers

    with Fleet("transformers", str(lab["aligned"]), SETTINGS, replicas=1, on_gpu=False).running():
        answers = Responses(Store(tmp_path), {}).of(questions_of(prompts), ask)
    assert sorted(answers[ID]) == sorted(prompt.prompt_id for prompt in prompts)
    assert (answers["error"] == "").all() and len(asked) > 1 and asked[1] > 0


def test_a_guard_judges_on_engines_of_its_own(ray_session: None, lab: dict[str, Path], tmp_path: Path) -> None:
    stop_fleet()
    store = Store(tmp_path)
    guards = {"guard": ModelFolder(build_guard(store, lab["base"], report=lambda line: None), "guard")}
    target = Fleet("vllm", str(lab["aligned"]), SETTINGS, replicas=1, on_gpu=False)
    (fleet,) = guard_fleets(guards, SETTINGS, target, replicas=1)
    rng, pool = random.Random(0), actions().harm_test
    exchanges = [answered(pool, REQUESTS, rng) for _ in range(40)] + [refused(pool, REQUESTS, rng) for _ in range(40)]
    rows = pd.DataFrame([{"text": one.prompt, "response": one.response, "target": None} for one in exchanges])
    (guard,) = judges_of(["guard"], guards, store, "vllm")
    with fleet.running():
        verdicts = guard.verdicts(rows)
    assert verdicts.count("unscored") == 0
    assert agreement(verdicts, ["unsafe"] * 40 + ["safe"] * 40).same >= 0.9
    assert guard.verdicts(rows) == verdicts  # kept: the engines are gone


def test_a_fleet_that_can_not_load_its_model_says_why(ray_session: None, evaluated: object, tmp_path: Path) -> None:
    stop_fleet()
    try:
        Fleet("transformers", str(tmp_path / "no-model"), SETTINGS, replicas=1, on_gpu=False).start()
        with pytest.raises(EvaluationError, match="the engines did not start"):
            wait_for_fleet(120)
    finally:
        stop_fleet()
