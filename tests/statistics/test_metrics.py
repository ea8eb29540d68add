"""Rates: the published Wilson values, hand-counted verdicts, and what an unscored verdict may and may not change."""

import math
from dataclasses import replace

import pandas as pd
import pytest

from safecomm.statistics.metrics import as_columns, mean_rate, rate, rates

# Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3 (score without continuity correction).
NEWCOMBE = [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]


@pytest.mark.parametrize(("hits", "n", "low", "high"), NEWCOMBE)
def test_interval_is_the_published_wilson_interval(hits: int, n: int, low: float, high: float) -> None:
    found = rate(hits, n, n)
    assert (found.value, found.n, found.unscored) == (hits / n, n, 0)
    assert [round(found.low, 4), round(found.high, 4)] == [low, high]


def test_unscored_prompts_leave_the_rate_and_show_up_beside_it() -> None:
    assert replace(rate(2, 8, 10), unscored=0) == rate(2, 8, 8)
    assert rate(2, 8, 10).unscored == pytest.approx(0.2)


def test_nothing_scored_is_unknown_and_not_zero() -> None:
    found = rate(0, 0, 5)
    assert math.isnan(found.value)
    assert (found.low, found.high, found.n, found.unscored) == (0.0, 1.0, 0, 1.0)


def test_mean_of_one_benchmark_is_that_benchmark() -> None:
    assert as_columns({"m": mean_rate([rate(3, 10, 11)])}) == pytest.approx(as_columns({"m": rate(3, 10, 11)}))


def test_mean_weighs_benchmarks_alike_and_narrows_the_interval() -> None:
    small, large = rate(10, 20, 20), rate(20, 200, 200)
    found = mean_rate([small, large])
    assert found.value == pytest.approx((0.5 + 0.1) / 2)
    assert found.n == 220
    # by hand: half-widths below are 0.5 - 0.2993 and 0.1 - 0.0657, above 0.7007 - 0.5 and 0.1494 - 0.1
    assert found.low == pytest.approx(0.3 - math.hypot(0.2007, 0.0343) / 2, abs=1e-4)
    assert found.high == pytest.approx(0.3 + math.hypot(0.2007, 0.0494) / 2, abs=1e-4)
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


def test_rates_count_every_kind_by_its_own_words() -> None:
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


def test_columns_are_named_after_the_metric() -> None:
    assert set(as_columns({"asr/adv": rate(1, 2, 2)})) == {
        *("asr/adv", "asr/adv_low", "asr/adv_high", "asr/adv_n", "asr/adv_unscored")
    }
