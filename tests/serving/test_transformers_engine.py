"""The engine for machines without vLLM answers with the adapter that a request names."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from serving_helpers import SETTINGS, questions

from safecomm.data.rows import Prompt
from safecomm.serving.transformers_engine import TransformersEngine

pytestmark = pytest.mark.slow


def test_each_adapter_and_the_bare_model_give_their_own_answers(
    lab: dict[str, Path], adapters: list[str], prompts: tuple[Prompt, ...]
) -> None:
    engine = TransformersEngine(str(lab["aligned"]), SETTINGS)
    asked = questions(prompts[:8] + prompts[-4:])

    async def answers(order: list[str | None]) -> list[str]:
        batches = [await engine.answer(asked, adapter) for adapter in order]
        return [str([answer["response"] + str(answer["scores"]) for answer in batch]) for batch in batches]

    models = [None, *adapters]
    first, again = asyncio.run(answers(models)), asyncio.run(answers(models[::-1]))
    assert len(set(first)) == len(models)
    assert first == again[::-1]


def test_a_models_generation_config_does_not_change_answers(lab: dict[str, Path], tmp_path: Path) -> None:
    settings = {"do_sample": True, "temperature": 5.0, "top_p": 0.1, "repetition_penalty": 3.0}
    other = Path(shutil.copytree(lab["aligned"], tmp_path / "other"))
    file = other / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    asked = questions((_prompt("how do i bake bread?"), _prompt("tell me about the radio link")))
    asked += [asked[0] | {"seed": 1}]
    expected, found = (
        asyncio.run(TransformersEngine(str(model), SETTINGS).answer(asked, None)) for model in (lab["aligned"], other)
    )
    assert found == expected


def test_options_are_scored_by_the_mean_or_the_sum_of_their_tokens(lab: dict[str, Path]) -> None:
    engine = TransformersEngine(str(lab["aligned"]), SETTINGS)
    (asked,) = questions((Prompt("b", "task", "is it safe?", options=("safe", "very much unsafe"), answer=0),))
    by_mean, by_sum = asyncio.run(engine.answer([asked, asked | {"score": "sum"}], None))
    counts = [len(engine._tokenizer(text, add_special_tokens=False)["input_ids"]) for text in asked["options"]]
    means = [total / count for total, count in zip(by_sum["scores"], counts, strict=True)]
    assert max(counts) > 1 and by_mean["scores"] == pytest.approx(means)


def test_a_question_that_is_too_long_is_marked_and_the_others_are_answered(lab: dict[str, Path]) -> None:
    engine = TransformersEngine(str(lab["aligned"]), SETTINGS)
    asked = questions((_prompt("how do i bake bread?"), _prompt("bread " * 200), _prompt("how do i bake a pie?")))
    answers = asyncio.run(engine.answer(asked, None))
    assert [answer["finish_reason"] == "too_long" for answer in answers] == [False, True, False]
    assert (answers[1]["response"], answers[1]["error"]) == ("", "")


def test_an_answer_says_how_many_tokens_were_generated_for_it(lab: dict[str, Path]) -> None:
    engine = TransformersEngine(str(lab["aligned"]), SETTINGS)
    asked = questions((_prompt("how do i bake bread?"), _prompt("tell me about the radio link")))
    for answer in asyncio.run(engine.answer(asked, None)):
        ids = engine._tokenizer(answer["response"], add_special_tokens=False)["input_ids"]
        assert answer["tokens"] == len(ids) + (answer["finish_reason"] == "stop")


def test_a_sampled_answer_depends_only_on_its_seed(lab: dict[str, Path]) -> None:
    engine = TransformersEngine(str(lab["aligned"]), SETTINGS)
    (asked,) = questions((_prompt("how do i bake bread?"),))

    def said(*seeds: int) -> list[str]:
        answers = asyncio.run(engine.answer([asked | {"seed": seed} for seed in seeds], None))
        return [answer["response"] for answer in answers]

    several = said(*range(8))
    assert said(3) == [several[3]] and said(*range(8)) == several
    assert len(set(several)) > 1


def _prompt(text: str) -> Prompt:
    return Prompt(benchmark="b", kind="over_refusal", text=text)
