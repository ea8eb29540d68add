"""Modules are selected as the reference implementations do, ties and rounding included."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safecomm.defenses.alignment import ModuleProfile, Profile
from safecomm.defenses.selection import select
from safecomm.errors import UsageError


def profile_of(*rho: float) -> Profile:
    rows = [ModuleProfile(f"m{number}", value, 0.7, 1.0, 1.0, 1.0) for number, value in enumerate(rho)]
    return Profile(rows, {}, "")


def test_threshold_includes_its_own_value_unless_strict() -> None:
    profile = profile_of(0.5, 0.4, 0.6)
    assert select(profile, {"threshold": 0.5}) == ["m0", "m1"]
    assert select(profile, {"threshold": 0.5}, strict=True) == ["m1"]


def test_rho_is_compared_at_five_decimals() -> None:
    profile = profile_of(0.600004, 0.599996)
    assert select(profile, {"threshold": 0.6}) == ["m0", "m1"]
    assert select(profile, {"threshold": 0.6}, strict=True) == []


@pytest.mark.parametrize(
    ("lowest", "selected"), [(0, []), (1, ["m1"]), (2, ["m0", "m1", "m3"]), (9, ["m0", "m1", "m2", "m3"])]
)
@pytest.mark.parametrize("strict", [False, True])
def test_lowest_takes_ties_along_and_stops_at_all(lowest: int, selected: list[str], strict: bool) -> None:
    assert select(profile_of(0.5, 0.4, 0.6, 0.500001), {"lowest": lowest}, strict=strict) == selected


@pytest.mark.parametrize(
    "way", [{}, {"threshold": 0.5, "lowest": 1}, {"lowest": -1}, {"quantile": 1.1}, {"quantile": -0.1}]
)
def test_senseless_ways_of_selecting_are_refused(way: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        select(profile_of(0.5), way)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20), st.integers(0, 25))
def test_lowest_selects_at_least_as_many_and_none_above_the_rest(rho: list[float], lowest: int) -> None:
    selected = select(profile_of(*rho), {"lowest": lowest})
    values = {f"m{number}": round(value, 5) for number, value in enumerate(rho)}
    rest = set(values) - set(selected)
    assert len(selected) >= min(lowest, len(rho))
    assert not selected or not rest or max(values[name] for name in selected) < min(values[name] for name in rest)


@pytest.mark.parametrize(("quantile", "count"), [(0.0, 0), (0.1, 0), (0.125, 1), (0.5, 2), (0.7, 3), (1.0, 4)])
def test_quantile_selects_the_nearest_number_of_modules(quantile: float, count: int) -> None:
    assert select(profile_of(0.1, 0.2, 0.3, 0.4), {"quantile": quantile}) == ["m0", "m1", "m2", "m3"][:count]


def test_quantile_takes_ties_along() -> None:
    assert select(profile_of(0.2, 0.1, 0.2, 0.3), {"quantile": 0.5}) == ["m0", "m1", "m2"]


def test_above_null_judges_each_shape_by_its_own_null() -> None:
    rows = [ModuleProfile("q", 0.72, 0.70711, 1, 1, 1), ModuleProfile("v", 0.88, 0.89443, 1, 1, 1)]
    profile = Profile(rows, {}, "")
    assert select(profile, {"above_null": 0.0}) == ["v"]
    assert select(profile, {"above_null": 0.01289}) == ["q", "v"]
    assert select(profile, {"above_null": 0.01289}, strict=True) == ["v"]
    assert select(profile, {"threshold": 0.8}) == ["q"]
