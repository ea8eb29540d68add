"""Statistics agree with published or library values, and intervals have nominal coverage in a seeded simulation."""

import itertools
import math
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from safecomm.statistics.comparisons import (
    JudgeAccuracy,
    Pairs,
    RateDifference,
    agreement,
    corrected,
    holm,
    judge_accuracy,
    paired_difference,
    sign_flip_p,
)
from safecomm.statistics.metrics import Rate, clustered_rate, rate


@given(hits=st.lists(st.booleans(), min_size=2, max_size=60))
def test_clusters_of_one_answer_are_independent_prompts(hits: list[bool]) -> None:
    assert clustered_rate([int(hit) for hit in hits], [1] * len(hits), len(hits)) == rate(
        sum(hits), len(hits), len(hits)
    )


def test_prompts_of_one_cluster_count_as_one() -> None:
    together = clustered_rate([5] * 10 + [0] * 30, [5] * 40, 200)
    apart = rate(10, 40, 40)
    assert (together.value, together.n) == (0.25, 200)
    assert (together.low, together.high) == pytest.approx((apart.low, apart.high), abs=0.01)


def test_clustered_intervals_cover_at_their_nominal_rate() -> None:
    random = np.random.default_rng(0)
    covered = plain_covered = 0
    runs, groups, size = 2000, 60, 5
    for _ in range(runs):
        hits = random.binomial(size, random.beta(0.6, 1.4, groups))  # mean 0.3, strongly alike within a group
        found = clustered_rate(hits.tolist(), [size] * groups, groups * size)
        plain = rate(int(hits.sum()), groups * size, groups * size)
        covered += found.low <= 0.3 <= found.high
        plain_covered += plain.low <= 0.3 <= plain.high
    assert 0.93 <= covered / runs <= 0.97
    assert plain_covered / runs < 0.85  # what the groups are for


def test_mcnemar_is_the_exact_one_on_the_changed_verdicts() -> None:
    # Agresti, Categorical Data Analysis (2013), table 11.1: 86 changed one way, 150 the other, 794 + 570 alike.
    ours = [1] * 794 + [1] * 150 + [0] * 86 + [0] * 570
    reference = [1] * 794 + [0] * 150 + [1] * 86 + [0] * 570
    found = compare(ours, reference)
    assert found.value == pytest.approx(64 / 1600) and found.n == 1600
    assert found.p == pytest.approx(binomtest(86, 236).pvalue)
    assert (found.low, found.high) == pytest.approx((0.022, 0.058), abs=0.003)  # the book: 0.022 to 0.058
    for wrong in (([], []), ([1], [1, 0])):
        with pytest.raises(ValueError, match="paired"):
            compare(*wrong)


def compare(ours: Sequence[float], reference: Sequence[float], seed: int = 0) -> RateDifference:
    """Compares the verdicts on one benchmark."""
    pairs = [Pairs(np.asarray(ours, float), np.asarray(reference, float))]
    return replace(paired_difference(pairs), p=sign_flip_p(pairs, seed))


def test_newcombes_published_paired_interval() -> None:
    """Newcombe 1998, table II, method 10: 36 both, 12 and 2 changed, 0 neither, of 50: 0.20 [0.0569, 0.3404]."""
    ours, reference = [1] * 36 + [1] * 12 + [0] * 2, [1] * 36 + [0] * 12 + [1] * 2
    found = compare(ours, reference)
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0569, 0.3404), abs=0.012)


def test_no_changed_verdict_does_not_prove_equality() -> None:
    """A bootstrap interval of no discordant pair in 50 is [0, 0], but a true change of a few percent can give none."""
    found = compare([1] * 5 + [0] * 45, [1] * 5 + [0] * 45)
    assert (found.value, found.p) == (0, 1)
    assert found.low < -0.02 and found.high > 0.02


def test_a_difference_weighs_benchmarks_like_the_rates() -> None:
    """Issue: rates of 20.0% and 1.25% were reported with a difference of 0, because it pooled the prompts."""
    small, large = 20, 400
    ours = [np.repeat([1.0, 0.0], [0, small]), np.repeat([1.0, 0.0], [10, large - 10])]
    reference = [np.repeat([1.0, 0.0], [8, small - 8]), np.repeat([1.0, 0.0], [2, large - 2])]
    pairs = [Pairs(a, b) for a, b in zip(ours, reference, strict=True)]
    found = paired_difference(pairs)
    assert found.value == pytest.approx((0 + 10 / large) / 2 - (8 / small + 2 / large) / 2)
    assert found.high < 0 and sign_flip_p(pairs) < 0.05


def test_the_permutation_test_agrees_with_an_enumeration_of_all_signs() -> None:
    """Two benchmarks of different sizes; many differences are equal, as with a few answers per prompt."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        pairs = [Pairs(rng.integers(0, 4, n) / 3, rng.integers(0, 3, n) / 3) for n in (5, 8)]
        changes = np.concatenate([(one.ours - one.reference) / len(one.ours) for one in pairs])
        signs = np.array(list(itertools.product((-1, 1), repeat=len(changes))))
        exact = (np.abs(signs @ changes) >= abs(changes.sum()) - 1e-12).mean()
        assert sign_flip_p(pairs) == pytest.approx(exact, abs=0.02)


def test_the_permutation_test_of_very_many_changes_fits_in_memory() -> None:
    """All signs at once would take 10 GB."""
    rng = np.random.default_rng(0)
    ours = rng.integers(0, 5, 1_000_000) / 4
    tracemalloc.start()
    p = sign_flip_p([Pairs(ours, rng.permutation(ours))])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert p > 0.01 and peak < 200e6


def test_paired_intervals_cover_at_their_nominal_rate() -> None:
    random = np.random.default_rng(1)
    covered = false_alarms = 0
    runs = 400
    for run in range(runs):
        reference = random.random(200) < 0.4
        ours = np.where(random.random(200) < 0.3, random.random(200) < 0.1, reference)  # truth: 0.3 * (0.1 - 0.4)
        found = compare(ours, reference, seed=run)
        covered += found.low <= -0.09 <= found.high
        alike = np.where(random.random(200) < 0.3, random.random(200) < 0.4, reference)
        false_alarms += compare(alike, reference, seed=run).p < 0.05
    assert 0.92 <= covered / runs <= 0.98
    assert false_alarms / runs <= 0.06


def test_holm_is_the_published_step_down() -> None:
    # Worked out by hand: 0.01 * 4, then 0.02 * 3 = 0.06, then 0.03 * 2 = 0.06, then 0.04, which may not fall again.
    assert holm({"a": 0.01, "b": 0.03, "c": 0.02, "d": 0.04}) == pytest.approx(
        {"a": 0.04, "b": 0.06, "c": 0.06, "d": 0.06}
    )
    assert holm({}) == {}


def test_kappa_is_the_published_value() -> None:
    # Fleiss, Levin and Paik, Statistical Methods for Rates and Proportions (2003): 20 yes-yes, 15 no-no of 50; 0.40.
    first = ["unsafe"] * 25 + ["safe"] * 25
    second = ["unsafe"] * 20 + ["safe"] * 5 + ["unsafe"] * 10 + ["safe"] * 15
    found = agreement(first, second)
    assert found.kappa == pytest.approx(0.4) and found.same == 0.7 and found.n == 50
    assert found.low < 0.4 < found.high
    assert agreement([*first, "unscored"], [*second, "safe"]) == found


def test_kappa_is_unknown_with_a_single_verdict() -> None:
    assert math.isnan(agreement(["safe"] * 5, ["safe"] * 5).kappa)
    assert math.isnan(agreement(["unscored"], ["safe"]).kappa)
    assert agreement(["safe", "unsafe"] * 9, ["safe", "unsafe"] * 9).kappa == 1


def test_a_judge_is_measured_against_people() -> None:
    found = judge_accuracy(
        ["unsafe"] * 8 + ["safe", "unscored"] + ["safe"] * 19 + ["unsafe"], [True] * 10 + [False] * 20
    )
    assert found.sensitivity.value == pytest.approx(8 / 9) and found.sensitivity.unscored == pytest.approx(0.1)
    assert found.specificity.value == pytest.approx(0.95)


def test_correction_is_rogans_and_gladens() -> None:
    judge = JudgeAccuracy(rate(90, 100, 100), rate(80, 100, 100))
    found = corrected(rate(410, 1000, 1000), judge)
    assert found.value == pytest.approx((0.41 + 0.8 - 1) / (0.9 + 0.8 - 1))  # 0.3
    assert found.low < found.value < found.high
    assert corrected(rate(100, 1000, 1000), judge).value == 0.0  # fewer than the judge's false alarms alone
    perfect = JudgeAccuracy(rate(10**6, 10**6, 10**6), rate(10**6, 10**6, 10**6))
    close, plain = corrected(rate(410, 1000, 1000), perfect), rate(410, 1000, 1000)
    assert (close.value, close.low, close.high) == pytest.approx((plain.value, plain.low, plain.high), abs=1e-3)


@pytest.mark.parametrize(
    "judge", [JudgeAccuracy(rate(5, 10, 10), rate(5, 10, 10)), JudgeAccuracy(rate(0, 0, 0), rate(9, 9, 9))]
)
def test_an_uninformative_judge_corrects_nothing(judge: JudgeAccuracy) -> None:
    found = corrected(rate(4, 10, 10), judge)
    assert math.isnan(found.value) and (found.low, found.high) == (0, 1)


@pytest.mark.parametrize("truth", [0.02, 0.1, 0.4])
def test_corrected_intervals_cover_at_their_nominal_rate(truth: float) -> None:
    random = np.random.default_rng(2)
    covered, runs = 0, 2000
    for _ in range(runs):
        judge = JudgeAccuracy(
            rate(int(random.binomial(100, 0.9)), 100, 100), rate(int(random.binomial(150, 0.95)), 150, 150)
        )
        hits = int(random.binomial(400, truth * 0.9 + (1 - truth) * 0.05))
        found: Rate = corrected(rate(hits, 400, 400), judge)
        covered += found.low <= truth <= found.high
    assert covered / runs >= 0.94


def test_answers_to_one_prompt_do_not_count_as_prompts() -> None:
    rng = np.random.default_rng(0)
    prone = rng.random(40)  # how often each prompt is answered unsafely, by both models alike
    found = []
    for _ in range(200):
        first, second = (rng.random((40, 8)) < prone[:, None] for _ in range(2))
        found.append(compare(list(first.mean(1)), list(second.mean(1)), seed=len(found)).p)
    assert np.mean(np.array(found) < 0.05) <= 0.09


def test_a_judge_with_a_single_verdict_is_uninformative() -> None:
    found = agreement(["unsafe"] * 10, ["safe"] * 9 + ["unsafe"])
    assert (found.kappa, found.low, found.high, found.same) == (0.0, -1.0, 1.0, 0.1)
