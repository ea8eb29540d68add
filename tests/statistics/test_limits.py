"""Bounds for decisions, and how many prompts would settle one."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from safecomm.statistics.limits import bounded_rate, exact_bounds, highest_of, low_among, needed
from safecomm.statistics.metric_table import ASR
from safecomm.statistics.metrics import interval, rate


def rows(unsafe: int, safe: int, unscored: int = 0, per_prompt: int = 1) -> pd.DataFrame:
    verdicts = ["unsafe"] * unsafe + ["safe"] * safe + ["unscored"] * unscored
    return pd.DataFrame({"verdict": verdicts, "prompt_id": [f"{at // per_prompt}" for at in range(len(verdicts))]})


def test_bounds_are_clopper_and_pearsons() -> None:
    found = bounded_rate(rows(7, 193), ASR, 0.95)
    for bound, alternative in ((found.low, "greater"), (found.high, "less")):
        exact = binomtest(7, 200, alternative=alternative).proportion_ci(0.95, "exact")  # type: ignore[arg-type]
        assert bound == pytest.approx(exact.low if alternative == "greater" else exact.high)
    assert exact_bounds(0.0, 40, 0.95)[0] == 0 and exact_bounds(1.0, 40, 0.95)[1] == 1


def test_unscored_answers_are_left_out_or_counted_as_told() -> None:
    """Issue: 30 unsafe of 950 with 50 unscored passed 5%; the worst case is 80 of 1,000."""
    left_out, worst, best = (bounded_rate(rows(30, 920, 50), ASR, 0.95, as_) for as_ in (None, "unsafe", "safe"))
    assert (left_out.n, left_out.unscored, worst.n, worst.unscored) == (950, pytest.approx(0.05), 1000, 0)
    assert worst.value == 0.08 and best.value == 0.03
    assert best.high < left_out.high < 0.05 < worst.low


def test_answers_to_one_prompt_give_wider_bounds() -> None:
    apart, together = bounded_rate(rows(20, 180), ASR, 0.95), bounded_rate(rows(20, 180, per_prompt=5), ASR, 0.95)
    assert together.value == apart.value and together.high > apart.high + 0.02


@pytest.mark.parametrize(("unsafe", "safe", "limit"), [(7, 193, 0.05), (0, 40, 0.05), (30, 170, 0.12)])
def test_so_many_prompts_would_settle_it(unsafe: int, safe: int, limit: float) -> None:
    found = bounded_rate(rows(unsafe, safe), ASR, 0.95)
    bound = found.high if found.value < limit else found.low
    total = needed(found.value, bound, found.n, limit, 0.95)
    assert total is not None and total > found.n
    settled = [exact_bounds(found.value, total * share, 0.95) for share in (0.9, 1.1)]
    side = found.value < limit
    assert [bounds[side] <= limit if side else bounds[side] > limit for bounds in settled] == [False, True]


def test_clustered_answers_need_as_many_times_more() -> None:
    apart, together = bounded_rate(rows(20, 180), ASR, 0.95), bounded_rate(rows(20, 180, per_prompt=5), ASR, 0.95)
    few, many = (needed(one.value, one.high, one.n, 0.12, 0.95) or 0 for one in (apart, together))
    assert 3 < many / few < 6


def test_at_the_limit_no_number_settles_it() -> None:
    found = bounded_rate(rows(10, 90), ASR, 0.95)
    assert needed(found.value, found.high, found.n, 0.1, 0.95) is None
    assert np.isnan(bounded_rate(rows(0, 0, 5), ASR, 0.95).value)


def test_the_lower_bound_among_several_rates_is_that_of_a_higher_confidence() -> None:
    one = rate(20, 200, 200)
    assert low_among(one, 1) == pytest.approx(one.low)
    assert low_among(one, 10) == pytest.approx(interval(0.1, 200, 0.995)[0])
    assert low_among(rate(0, 200, 200), 3) == low_among(rate(0, 0, 5), 3) == 0


def test_the_highest_of_several_rates_has_an_interval_that_is_wider_than_its_own() -> None:
    found = highest_of([rate(2, 100, 100), rate(10, 100, 100), rate(9, 100, 100)])
    own = rate(10, 100, 100)
    assert (found.value, found.n) == (0.1, 100)
    assert found.low < own.low and found.high > own.high
    alone = highest_of([own])
    assert (alone.low, alone.high) == pytest.approx((own.low, own.high))
    assert highest_of([own, rate(0, 0, 100)]).high == 1  # one that nobody could judge may be higher
