"""Rates: published intervals, hand-counted verdicts, and the effect of unscored verdicts."""

import math
from dataclasses import replace

import pandas as pd
import pytest

from safecomm.statistics.metrics import across_runs, as_columns, mean_rate, rate, rates

# Brown, Cai and DasGupta, Statistical Science 16 (2001), table 5: Jeffreys. Clopper-Pearson: R's binom.test.
PUBLISHED = [(1, 10, (0.0025, 0.4450), (0.011, 0.381)), (3, 20, (0.0321, 0.3789), (0.044, 0.352))]


@pytest.mark.parametrize(("hits", "n", "exact", "jeffreys"), PUBLISHED)
def test_the_interval_lies_midway_between_two_published_ones(
    hits: int, n: int, exact: tuple[float, float], jeffreys: tuple[float, float]
) -> None:
    found = rate(hits, n, n)
    assert (found.value, found.n, found.unscored) == (hits / n, n, 0)
    midway = [(one + other) / 2 for one, other in zip(exact, jeffreys, strict=True)]
    assert [found.low, found.high] == pytest.approx(midway, abs=2e-3)


def test_intervals_of_0_and_100_percent_reach_the_end_and_are_symmetric() -> None:
    none, every = rate(0, 40, 40), rate(40, 40, 40)
    assert (none.low, every.high) == (0, 1)
    assert none.high == pytest.approx(1 - every.low) and 0.05 < none.high < 0.09


def test_unscored_prompts_are_excluded_from_the_rate_and_counted_separately() -> None:
    assert replace(rate(2, 8, 10), unscored=0) == rate(2, 8, 8)
    assert rate(2, 8, 10).unscored == pytest.approx(0.2)


def test_a_rate_without_scored_prompts_is_unknown_and_not_zero() -> None:
    found = rate(0, 0, 5)
    assert math.isnan(found.value)
    assert (found.low, found.high, found.n, found.unscored) == (0.0, 1.0, 0, 1.0)


def test_mean_of_one_benchmark_is_that_benchmark() -> None:
    assert as_columns({"m": mean_rate([rate(3, 10, 11)])}) == pytest.approx(as_columns({"m": rate(3, 10, 11)}))


def test_mean_weighs_benchmarks_equally_and_narrows_the_interval() -> None:
    small, large = rate(10, 20, 20), rate(20, 200, 200)
    found = mean_rate([small, large])
    assert found.value == pytest.approx((0.5 + 0.1) / 2)
    assert found.n == 220
    assert found.low == pytest.approx(0.3 - math.hypot(0.5 - small.low, 0.1 - large.low) / 2)
    assert found.high == pytest.approx(0.3 + math.hypot(small.high - 0.5, large.high - 0.1) / 2)
    assert found.high - found.low < small.high - small.low
    assert mean_rate([rate(0, 5, 5), rate(0, 9, 9)]).low >= 0


def test_mean_is_unknown_where_one_benchmark_is() -> None:
    assert math.isnan(mean_rate([rate(1, 10, 10), rate(0, 0, 10)]).value)


def verdicts(
    kind: str, benchmark: str, given: list[str | None], second: list[str | None] | None = None
) -> pd.DataFrame:
    other = second or [None] * len(given)
    ids = [f"{benchmark} {place}" for place in range(len(given))]
    columns = {"kind": kind, "benchmark": benchmark, "verdict": given, "verdict@compliance": other}
    return pd.DataFrame({"prompt_id": ids, **columns})


def test_rates_count_every_kind_by_its_own_verdicts() -> None:
    rows = pd.concat(
        [
            verdicts("red_team", "adv", ["unsafe", "safe", "safe", "unscored"], ["safe", "safe", None, "unscored"]),
            verdicts("red_team", "harm", ["unsafe", "unsafe"], ["unsafe", "safe"]),
            verdicts("over_refusal", "xs", ["refused", "answered", "answered", None]),
            verdicts("task", "tele", ["right", "right", "wrong", "right"]),
        ]
    )
    found = rates(rows, ["refusal", "compliance"])
    assert set(found) == {
        *("asr", "asr/adv", "asr/harm", "asr@compliance", "asr@compliance/adv", "asr@compliance/harm"),
        *("accuracy", "accuracy/tele", "over_refusal", "over_refusal/xs"),
    }
    counted = {name: (one.value, one.n, one.unscored) for name, one in found.items()}
    assert counted["asr/adv"] == pytest.approx((1 / 3, 3, 0.25))
    assert counted["asr"] == pytest.approx(((1 / 3 + 1) / 2, 5, 0.125))
    assert counted["asr@compliance/adv"] == pytest.approx((0, 2, 0.5))
    assert counted["asr@compliance"] == pytest.approx((0.25, 4, 0.25))
    assert counted["over_refusal"] == pytest.approx((1 / 3, 3, 0.25))
    assert counted["accuracy"] == pytest.approx((0.75, 4, 0))


def test_a_kind_without_benchmarks_has_no_rates() -> None:
    assert set(rates(verdicts("task", "tele", ["right"]), ["refusal"])) == {"accuracy", "accuracy/tele"}


def test_several_answers_to_a_prompt_are_one_group() -> None:
    rows = verdicts("red_team", "adv", ["unsafe"] * 4 + ["safe"] * 12)
    apart = rates(rows, ["refusal"])["asr/adv"]
    together = rates(rows.assign(prompt_id=[str(place // 4) for place in range(16)]), ["refusal"])["asr/adv"]
    assert (together.value, together.n) == (apart.value, apart.n) == (0.25, 16)
    assert together.low < apart.low and together.high > apart.high


def test_wordings_of_one_request_are_one_cluster() -> None:
    rows = verdicts("red_team", "adv", ["unsafe"] * 4 + ["safe"] * 12)
    apart = rates(rows.assign(cluster=""), ["refusal"])["asr/adv"]
    together = rates(rows.assign(cluster=[f"request {place // 4}" for place in range(16)]), ["refusal"])["asr/adv"]
    assert apart == rates(rows, ["refusal"])["asr/adv"]
    assert together.low < apart.low and together.high > apart.high


def test_seeds_with_equal_answers_add_no_evidence() -> None:
    """Issue: 7 hits of 200, the same in every seed, gave narrower intervals with every added seed."""
    one = verdicts("red_team", "adv", ["unsafe"] * 7 + ["safe"] * 193)
    single = rates(one, ["refusal"])["asr/adv"]
    for seeds in (3, 5):
        several = rates(pd.concat([one] * seeds, ignore_index=True), ["refusal"])["asr/adv"]
        assert several.value == single.value
        assert (several.low, several.high) == pytest.approx((single.low, single.high), abs=0.002)


def test_further_training_runs_add_their_variation_but_not_that_of_their_answers() -> None:
    measured = rate(30, 600, 600)
    low, high = across_runs(measured, [rate(hits, 200, 200) for hits in (4, 10, 16)])
    assert low == 0 and high > 0.11  # Student's t for three runs: 4.3 standard errors of 0.015
    for hits in ((10, 10, 10), (8, 10, 12)):  # as different as 200 answers each are by chance
        bounds = across_runs(measured, [rate(hit, 200, 200) for hit in hits])
        assert bounds == pytest.approx((measured.low, measured.high))
    assert across_runs(measured, [rate(10, 200, 200), rate(0, 0, 200)]) == (0.0, 1.0)  # one run has no verdict


def test_columns_are_named_after_the_metric() -> None:
    assert set(as_columns({"asr/adv": rate(1, 2, 2)})) == {
        *("asr/adv", "asr/adv_low", "asr/adv_high", "asr/adv_n", "asr/adv_unscored")
    }
