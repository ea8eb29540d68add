"""SafeInstruct's mixture: the number of safety examples, and ratios that differ only in the added examples."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safecomm.data.mixing import mix
from safecomm.data.rows import Example
from safecomm.errors import DataError

TELECOM = [Example(f"question {number}", "answer") for number in range(40)]
SAFETY = [Example(f"request {number}", "refusal") for number in range(30)]
ratios = st.floats(0, len(SAFETY) / len(TELECOM))
seeds = st.integers(0, 1000)


@settings(deadline=None)  # a busy machine is no failure
@given(ratios, seeds)
def test_counts_match_the_ratio(ratio: float, seed: int):
    mixture = mix(TELECOM, SAFETY, ratio, seed)
    assert mixture.safety == round(ratio * len(TELECOM))
    assert mixture.task == len(TELECOM)
    assert Counter(mixture.examples).most_common(1)[0][1] == 1, "drawn without replacement"
    assert len(set(mixture.examples) & set(SAFETY)) == mixture.safety
    assert set(TELECOM) <= set(mixture.examples)


@settings(deadline=None)  # a busy machine is no failure
@given(ratios, ratios, seeds)
def test_a_larger_ratio_only_adds(one: float, other: float, seed: int):
    small, large = sorted([one, other])
    fewer, more = mix(TELECOM, SAFETY, small, seed).examples, mix(TELECOM, SAFETY, large, seed).examples
    kept = set(fewer)
    assert [example for example in more if example in kept] == fewer


def test_only_the_seed_determines_the_mixture():
    assert mix(TELECOM, SAFETY, 0.5, 1) == mix(TELECOM, SAFETY, 0.5, 1)
    assert mix(TELECOM, SAFETY, 0.5, 1).examples != mix(TELECOM, SAFETY, 0.5, 2).examples
    draws = [set(mix(TELECOM, SAFETY, 0.5, seed).examples) for seed in (1, 2)]
    assert draws[0] != draws[1], "the draw, too, belongs to the seed"


def test_task_order_does_not_depend_on_safety_data():
    bare = mix(TELECOM, [], 0, 5).examples
    mixed = mix(TELECOM, SAFETY[::-1], 0.7, 5).examples
    assert [example for example in mixed if example in set(TELECOM)] == bare
    assert bare != TELECOM, "shuffled"


def test_safety_examples_are_spread_evenly():
    places = [index for index, example in enumerate(mix(TELECOM, SAFETY, 0.75, 0).examples) if example in set(SAFETY)]
    assert min(places) < 15 and max(places) > 55


def test_duplicate_safety_examples_count_once():
    with pytest.raises(DataError, match=r"needs 40 safety examples, but there are only 30 distinct .* at most 0\.75"):
        mix(TELECOM, SAFETY * 2, 1.0, 0)


def test_suggested_largest_ratio_works():
    telecom = TELECOM[:7]
    with pytest.raises(DataError, match=r"at most 0\.4285 "):
        mix(telecom, SAFETY[:3], 0.6, 0)
    assert mix(telecom, SAFETY[:3], 0.4285, 0).safety == 3


@pytest.mark.parametrize("ratio", [-0.1, float("nan"), float("inf")])
def test_invalid_ratios_are_rejected(ratio: float):
    with pytest.raises(DataError, match="must be 0 or more"):
        mix(TELECOM, SAFETY, ratio, 0)
