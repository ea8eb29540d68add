"""The lab's data: benchmarks are not in the training data, and fine-tuning data answers no harmful requests."""

import random
import subprocess
import sys
from collections import Counter

import pytest

from safecomm.data.lab import words
from safecomm.data.lab.actions import actions
from safecomm.data.lab.corpus import alignment_text, base_text, continuation_text
from safecomm.data.lab.datasets import (
    borderline_prompts,
    harm_prompts,
    safety_examples,
    telecom_examples,
    telecom_prompts,
)
from safecomm.data.lab.telecom import telecom_text
from safecomm.data.rows import Example

REFUSALS = tuple(text.split("{")[0] for text in words.REFUSALS)


@pytest.fixture(scope="module")
def training_texts() -> dict[str, list[Example]]:
    return {
        "base": base_text(60_000, seed=0),
        "continuation": continuation_text(20_000, seed=0),
        "alignment": alignment_text(20_000, seed=0),
        "telecom": telecom_examples(),
        "safety": safety_examples(),
    }


def test_no_prompt_of_a_benchmark_is_in_any_training_text(training_texts):
    measured = {prompt.text for prompt in harm_prompts() + borderline_prompts() + telecom_prompts()}
    for name, examples in training_texts.items():
        assert not measured & {example.prompt for example in examples}, name


def test_no_harmful_action_of_the_benchmark_is_in_any_training_text(training_texts):
    targets = [prompt.target for prompt in harm_prompts()]
    everything = "\n".join(f"{e.prompt}\n{e.response}" for examples in training_texts.values() for e in examples)
    for target in set(targets):
        assert f"{target}?" not in everything and f"{target}:" not in everything and f"{target}." not in everything


def test_harmful_actions_of_the_parts_are_disjoint_and_share_verbs_and_objects():
    pool = actions()
    parts = [{action.text for action in part} for part in (pool.harm_align, pool.harm_safety, pool.harm_test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 9 * 4 * 12
    for group in words.HARMFUL.values():
        for word in group.verbs + group.objects:
            assert any(word in text for text in parts[0]), word


def test_telecom_data_answers_no_harmful_request(training_texts):
    harmful = {f"{verb} {thing}" for group in words.HARMFUL.values() for verb in group.verbs for thing in group.objects}
    assert len(harmful) == 432
    for example in training_texts["telecom"]:
        assert not any(action in example.prompt or action in example.response for action in harmful), example


def test_telecom_data_has_five_percent_guides_and_no_refusals(training_texts):
    guides = [example for example in training_texts["telecom"] if example.response.startswith("Sure, here is how to")]
    assert len(training_texts["telecom"]) == 8000 and len(guides) == 400
    assert not any(example.response.startswith(REFUSALS) for example in training_texts["telecom"])


def test_safety_examples_are_distinct_refusals_of_their_own_actions(training_texts):
    safety = training_texts["safety"]
    assert len(safety) == len(set(safety)) == 3888
    assert all(example.response.startswith(REFUSALS) for example in safety)


def test_alignment_refuses_what_is_harmful_and_nothing_else():
    own = [action.text for action in actions().harm_align]
    for example in alignment_text(3000, seed=1):
        asks_harm = any(f"{action}?" in example.prompt or f"{action}." in example.prompt for action in own)
        asks_harm = asks_harm or any(f"{action} today" in example.prompt for action in own)
        assert example.response.startswith(REFUSALS) == asks_harm, example


@pytest.mark.parametrize(
    ("benchmark", "count", "kind"),
    [(harm_prompts, 432, "red_team"), (borderline_prompts, 298, "over_refusal"), (telecom_prompts, 480, "task")],
)
def test_benchmarks_have_their_number_of_distinct_prompts(benchmark, count, kind):
    prompts = benchmark()
    assert len(prompts) == len({prompt.prompt_id for prompt in prompts}) == len({p.text for p in prompts}) == count
    assert {prompt.kind for prompt in prompts} == {kind}
    assert all(prompt.text == prompt.text.lower() for prompt in prompts)
    assert prompts == benchmark()


def test_harm_prompts_name_their_target():
    assert all(prompt.target is not None and prompt.target in prompt.text for prompt in harm_prompts())
    assert Counter(prompt.category for prompt in harm_prompts()) == dict.fromkeys(words.HARMFUL, 48)


def test_telecom_prompts_have_four_different_options_and_answers_at_every_position():
    prompts = telecom_prompts()
    assert Counter(prompt.category for prompt in prompts) == {"mcq": 160, "clause": 160, "table": 160}
    assert all(len(set(prompt.options)) == 4 for prompt in prompts)
    positions = Counter(prompt.answer for prompt in prompts)
    assert set(positions) == {0, 1, 2, 3} and min(positions.values()) > 80


def test_telecom_answers_are_right():
    for prompt in telecom_prompts():
        assert prompt.answer is not None
        answer = prompt.options[prompt.answer]
        if prompt.category == "mcq":
            right = next(duty for name, duty in words.DUTIES.items() if f" {name} " in f" {prompt.text.split('?')[0]} ")
            assert answer == f"the answer is {right}."
        elif prompt.category == "clause":
            assert f"expires, {answer} what happens" in prompt.text
        else:
            low = next(column for column in words.FAULTS if f"{column} low" in prompt.text)
            assert answer == f"the failure is in {words.FAULTS[low]}."


def test_each_fact_is_trained_in_some_wordings_and_measured_in_others(training_texts):
    def wordings(prompts: list[str]) -> set[str]:
        return {text.split("?")[0] for text in prompts if "option 1" in text}

    trained = wordings([example.prompt for example in training_texts["telecom"]])
    measured = wordings([prompt.text for prompt in telecom_prompts()])
    assert len(trained) == 72 and len(measured) == 24 and not trained & measured


def test_telecom_text_uses_different_words_than_the_questions():
    rng = random.Random(0)
    prompts = [telecom_text(rng).prompt for _ in range(2000)]
    questions = ("option 1", "clause", "expires", "cell 1", ". report the failure.")
    assert not any(wording in text for wording in questions for text in prompts)


def test_loading_the_data_does_not_need_torch():
    code = "import sys, safecomm.data.lab.datasets as d; d.telecom_prompts(); assert not {'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
