"""vLLM replicas behind Ray Serve answer the requests that Ray Data streams, each with its own adapter."""

import asyncio
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pandas as pd
import psutil
import pytest
from serving_helpers import PROTOCOL, SETTINGS, questions

from safecomm.cluster.cleanup import app_name
from safecomm.data.lab.actions import actions, answered, refused
from safecomm.data.lab.datasets import harm_prompts
from safecomm.data.lab.words import REQUESTS
from safecomm.data.rows import Prompt
from safecomm.errors import EvaluationError
from safecomm.judging.judges import PhraseJudge
from safecomm.judging.model_judge import Panel, judge_fleets, judges_of
from safecomm.judging.verdicts import judged
from safecomm.serving.fleet import DEPLOYMENT, TARGET, Fleet, stop_fleet, wait_for_fleet
from safecomm.serving.models import ModelFolder
from safecomm.serving.responses import Questions, Responses
from safecomm.serving.stream import ID, Request, stream
from safecomm.serving.transformers_engine import TransformersEngine
from safecomm.spec.cluster import Replicas
from safecomm.spec.judges import JudgeRef
from safecomm.statistics.comparisons import agreement
from safecomm.storage.store import Store

JUDGES = [PhraseJudge("compliance"), PhraseJudge("refusal")]
pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.slow]


@pytest.fixture(scope="module")
def fleet(ray_session: None, lab: dict[str, Path]) -> Iterator[None]:
    Fleet("vllm", str(lab["aligned"]), replace(SETTINGS, sampled=True), replicas=1).start()
    wait_for_fleet(300)
    yield
    stop_fleet()


@pytest.fixture(scope="module")
def evaluated(fleet: None, adapters: list[str], prompts: tuple[Prompt, ...]) -> dict[str, pd.DataFrame]:
    """The answers of the bare model and of the adapters, all streamed concurrently."""

    def evaluate(adapter: str | None) -> pd.DataFrame:
        return judged(PROTOCOL.rows(prompts, asked(PROTOCOL.questions(prompts), adapter)), JUDGES)

    names = ("bare", "first", "second", "third", "fourth")
    with ThreadPoolExecutor(len(names)) as pool:
        return dict(zip(names, pool.map(evaluate, [None, *adapters]), strict=True))


def asked(questions: Questions, adapter: str | None = None) -> pd.DataFrame:
    """The target's answers."""
    return pd.concat([rows for _, rows in stream({"": Request(questions, adapter)})])


def engines() -> list[psutil.Process]:
    """The target's replicas that belong to this process's Ray."""
    started = psutil.Process().children(recursive=True)
    return [process for process in started if process.name().startswith(f"ray::ServeReplica:{app_name(TARGET)}")]


def test_every_prompt_is_answered_and_labelled_once(
    evaluated: dict[str, pd.DataFrame], prompts: tuple[Prompt, ...]
) -> None:
    for rows in evaluated.values():
        assert sorted(rows["prompt_id"]) == sorted(prompt.prompt_id for prompt in prompts)
        assert (rows["error"] == "").all()
        assert set(rows.loc[rows["kind"] == "red_team", "verdict"]) <= {"safe", "unsafe", "unscored"}
        assert set(rows.loc[rows["kind"] == "red_team", "verdict@refusal"]) <= {"safe", "unsafe", "unscored"}
        assert set(rows.loc[rows["kind"] == "task", "verdict"]) <= {"right", "wrong"}


def test_concurrent_adapters_give_their_own_answers(evaluated: dict[str, pd.DataFrame]) -> None:
    texts = {name: tuple(rows.loc[rows["kind"] != "task", "response"]) for name, rows in evaluated.items()}
    assert len(set(texts.values())) == len(texts)


def test_the_bare_model_stays_bare_beside_adapters(
    evaluated: dict[str, pd.DataFrame], adapters: list[str], prompts: tuple[Prompt, ...]
) -> None:
    from ray import serve

    replica = serve.get_deployment_handle(DEPLOYMENT, app_name(TARGET)).options(method_name="answer")
    alone = replica.remote(questions(prompts), None).result()
    bare, adapted = (
        asked.result() for asked in [replica.remote(questions(prompts), one) for one in (None, adapters[0])]
    )
    assert bare == alone != adapted


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


def test_letters_are_compared_as_transformers_does(fleet: None, lab: dict[str, Path], adapters: list[str]) -> None:
    letters = [Prompt("b", "task", text, options=tuple("ABCDE"), answer=0) for text in ("is it A?", "is it C or D?")]
    engine = TransformersEngine(str(lab["aligned"]), SETTINGS)
    for adapter in (None, adapters[0]):
        ours = asked(PROTOCOL.questions(letters), adapter).set_index(ID)
        theirs = asyncio.run(engine.answer(questions(tuple(letters)), adapter))
        for prompt, answer in zip(letters, theirs, strict=True):
            assert list(ours.loc[prompt.prompt_id, "scores"]) == pytest.approx(answer["scores"], abs=0.05)


def test_a_prompt_that_is_too_long_is_unscored_and_not_sent_again(fleet: None, tmp_path: Path) -> None:
    long = "bread " * 400
    asked_once = [
        Prompt("b", "red_team", long),
        Prompt("b", "task", long, options=("yes", "no"), answer=0),
        Prompt("b", "task", "is bread good?", options=("yes", "no"), answer=0),
    ]
    kept = Responses(Store(tmp_path), {"model": "aligned"})
    answers = kept.of(PROTOCOL.questions(asked_once), lambda missing: iter([asked(missing)]))
    rows = judged(PROTOCOL.rows(asked_once, answers), JUDGES).set_index("prompt_id")
    ends = [tuple(rows.loc[prompt.prompt_id, ["finish_reason", "error", "verdict"]]) for prompt in asked_once]
    assert ends[:2] == [("too_long", "", "unscored")] * 2
    assert ends[2][0] == "compared"
    assert not kept.missing(PROTOCOL.questions(asked_once))


def test_sampled_answers_are_reproduced_by_their_seed(fleet: None, prompts: tuple[Prompt, ...]) -> None:
    sampled = replace(PROTOCOL, sampling="safecomm", samples=4)
    found = [asked(sampled.questions(some)).set_index(ID) for some in (prompts[40:50], prompts[40:43])]
    assert set(found[0]["error"]) == {""}
    several, fewer = (answers["response"] for answers in found)
    assert several.groupby(lambda name: name.partition("#")[0]).nunique().max() > 1
    assert (several.loc[fewer.index] == fewer).mean() >= 0.9  # a batch may change a logit's last digits


def test_the_transformers_engine_serves_the_same_stream(
    ray_session: None,
    evaluated: dict[str, pd.DataFrame],
    lab: dict[str, Path],
    adapters: list[str],
    prompts: tuple[Prompt, ...],
) -> None:
    stop_fleet()
    Fleet("transformers", str(lab["aligned"]), SETTINGS, replicas=1).start()
    wait_for_fleet(120)
    answers = asked(PROTOCOL.questions(prompts), adapters[0])
    rows = judged(PROTOCOL.rows(prompts, answers), JUDGES).set_index("prompt_id")
    by_vllm = evaluated["first"].set_index("prompt_id")
    assert set(rows.index) == set(by_vllm.index)
    assert (rows["verdict"] == by_vllm.loc[rows.index, "verdict"]).mean() >= 0.9


def test_no_answer_is_lost_when_an_engine_is_killed(
    ray_session: None, evaluated: object, lab: dict[str, Path], tmp_path: Path
) -> None:
    stop_fleet()
    prompts = harm_prompts()[:200]
    sizes: list[int] = []

    def kill_when_at_work() -> None:
        (engine,) = engines()
        idle = engine.cpu_times().user
        while engine.cpu_times().user < idle + 0.3:
            time.sleep(0.01)
        engine.kill()

    def ask(missing: Questions) -> list[pd.DataFrame]:
        wait_for_fleet(120)
        sizes.append(len(missing))
        with ThreadPoolExecutor(1) as pool:
            killed = pool.submit(kill_when_at_work) if len(sizes) == 1 else None
            answers = asked(missing)
            if killed:
                killed.result()
        return [answers]

    with Fleet("transformers", str(lab["aligned"]), SETTINGS, replicas=1).running():
        answers = Responses(Store(tmp_path), {}).of(PROTOCOL.questions(prompts), ask)
    assert sorted(answers[ID]) == sorted(prompt.prompt_id for prompt in prompts)
    assert (answers["error"] == "").all() and len(sizes) > 1 and sizes[1] > 0


def test_engines_scaled_to_zero_start_on_a_request(ray_session: None, evaluated: object, lab: dict[str, Path]) -> None:
    stop_fleet()
    fleet = Fleet("transformers", str(lab["aligned"]), SETTINGS, replicas=1, scale_to_zero=True)
    with fleet.running():
        wait_for_fleet(120)
        assert not engines()
        answers = asked(PROTOCOL.questions(harm_prompts()[:4]))
        assert (answers["error"] == "").all() and engines()


def test_a_guard_judges_on_its_own_engines(ray_session: None, lab: dict[str, Path], tmp_path: Path) -> None:
    stop_fleet()
    store = Store(tmp_path)
    guards = {"guard": ModelFolder(lab["guard"], "guard")}
    target = Fleet("vllm", str(lab["aligned"]), SETTINGS, replicas=1)
    ref = JudgeRef(name="guard", model="lab://guard")
    (fleet,) = judge_fleets(Panel([ref], models=guards), target, Replicas())
    rng, pool = random.Random(0), actions().harm_test
    exchanges = [answered(pool, REQUESTS, rng) for _ in range(40)] + [refused(pool, REQUESTS, rng) for _ in range(40)]
    rows = pd.DataFrame([{"text": one.prompt, "response": one.response, "target": None} for one in exchanges])
    (judge,) = judges_of([ref], guards, store, "vllm")
    with fleet.running():
        verdicts = judge.verdicts(rows)
    assert verdicts.count("unscored") == 0
    assert agreement(verdicts, ["unsafe"] * 40 + ["safe"] * 40).same >= 0.9
    assert judge.verdicts(rows) == verdicts  # kept: the engines are gone


def test_a_fleet_that_can_not_load_its_model_reports_the_reason(
    ray_session: None, evaluated: object, tmp_path: Path
) -> None:
    stop_fleet()
    try:
        Fleet("transformers", str(tmp_path / "no-model"), SETTINGS, replicas=1).start()
        with pytest.raises(EvaluationError, match="the engines did not start"):
            wait_for_fleet(120)
    finally:
        stop_fleet()
