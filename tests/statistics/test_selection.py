"""Modules are selected as in the reference implementations, including ties and rounding."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safecomm.defenses import Adapter, Profile, breakpoints, select
from safecomm.errors import DefenseError
from safecomm.statistics.selection import ModuleProfile

NULLS = {"q_proj": 0.70711, "v_proj": 0.89443}


def profile_of(rho: Mapping[str, float]) -> Profile:
    rows = [
        ModuleProfile(name, value, NULLS.get(name.rpartition(".")[2], 0.7), 1.0, 1.0, 1.0)
        for name, value in rho.items()
    ]
    return Profile(rows, {}, Adapter({}, {}, "none"), Path("base"), Path("aligned"))


def numbered(*rho: float) -> Profile:
    return profile_of({f"m{number}": value for number, value in enumerate(rho)})


def test_threshold_includes_its_own_value_unless_strict() -> None:
    profile = numbered(0.5, 0.4, 0.6)
    assert select(profile.modules, {"threshold": 0.5}) == ["m0", "m1"]
    assert select(profile.modules, {"threshold": 0.5}, strict=True) == ["m1"]


def test_rho_is_compared_at_five_decimals() -> None:
    profile = numbered(0.600004, 0.599996)
    assert select(profile.modules, {"threshold": 0.6}) == ["m0", "m1"]
    assert select(profile.modules, {"threshold": 0.6}, strict=True) == []


@pytest.mark.parametrize(
    ("lowest", "selected"), [(0, []), (1, ["m1"]), (2, ["m0", "m1", "m3"]), (9, ["m0", "m1", "m2", "m3"])]
)
@pytest.mark.parametrize("strict", [False, True])
def test_lowest_includes_ties_and_is_limited_to_all_modules(lowest: int, selected: list[str], strict: bool) -> None:
    assert select(numbered(0.5, 0.4, 0.6, 0.500001).modules, {"lowest": lowest}, strict=strict) == selected


@pytest.mark.parametrize(
    "way",
    [
        {},
        {"threshold": None},
        {"threshold": 0.5, "lowest": 1},
        {"threshold": 1.01},
        {"threshold": float("nan")},
        {"lowest": -1},
        {"lowest": 1.5},
        {"quantile": 1.1},
        {"quantile": -0.1},
        {"threshold": {"v_proj": 0.5}},
    ],
)
def test_invalid_selections_are_rejected(way: dict[str, float]) -> None:
    with pytest.raises(DefenseError):
        select(profile_of({"layers.0.q_proj": 0.5}).modules, way)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20), st.integers(0, 25))
def test_lowest_selects_at_least_as_many_and_none_above_the_rest(rho: list[float], lowest: int) -> None:
    selected = select(numbered(*rho).modules, {"lowest": lowest})
    values = {f"m{number}": round(value, 5) for number, value in enumerate(rho)}
    rest = set(values) - set(selected)
    assert len(selected) >= min(lowest, len(rho))
    assert not selected or not rest or max(values[name] for name in selected) < min(values[name] for name in rest)


@pytest.mark.parametrize(("quantile", "count"), [(0.0, 0), (0.1, 0), (0.125, 1), (0.5, 2), (0.7, 3), (1.0, 4)])
def test_quantile_selects_the_nearest_number_of_modules(quantile: float, count: int) -> None:
    assert select(numbered(0.1, 0.2, 0.3, 0.4).modules, {"quantile": quantile}) == ["m0", "m1", "m2", "m3"][:count]


def test_quantile_includes_ties() -> None:
    assert select(numbered(0.2, 0.1, 0.2, 0.3).modules, {"quantile": 0.5}) == ["m0", "m1", "m2"]


def test_above_null_judges_each_shape_by_its_own_null() -> None:
    profile = profile_of({"q_proj": 0.72, "v_proj": 0.88})
    assert select(profile.modules, {"above_null": 0.0}) == ["v_proj"]
    assert select(profile.modules, {"above_null": 0.01289}) == ["q_proj", "v_proj"]
    assert select(profile.modules, {"above_null": 0.01289}, strict=True) == ["v_proj"]
    assert select(profile.modules, {"threshold": 0.8}) == ["q_proj"]


@pytest.mark.parametrize(
    ("way", "selected"),
    [
        ({"threshold": {"q_proj": 0.6, "v_proj": 0.85}}, ["0.q_proj", "0.v_proj"]),
        ({"threshold": {"v_proj": 0.95}}, ["0.v_proj", "1.v_proj"]),
        ({"lowest": {"q_proj": 2, "v_proj": 1}}, ["0.q_proj", "0.v_proj", "1.q_proj"]),
        ({"quantile": {"v_proj": 0.5}}, ["0.v_proj"]),
        ({"above_null": {"q_proj": -0.05, "v_proj": 0.1}}, ["0.q_proj", "0.v_proj", "1.v_proj"]),
    ],
)
def test_each_module_type_may_have_its_own_value(way: dict[str, dict[str, float]], selected: list[str]) -> None:
    profile = profile_of({"0.q_proj": 0.6, "0.v_proj": 0.8, "1.q_proj": 0.7, "1.v_proj": 0.9})
    assert select(profile.modules, way) == selected


@given(
    rho=st.lists(st.floats(-1, 1), min_size=1, max_size=12),
    way=st.sampled_from(["threshold", "above_null", "lowest", "quantile"]),
    strict=st.booleans(),
    other=st.floats(-1, 1),
)
def test_breakpoints_produce_every_outcome_once(rho: list[float], way: str, strict: bool, other: float) -> None:
    profile = numbered(*rho)
    outcomes = [
        tuple(select(profile.modules, {way: value}, strict=strict)) for value in breakpoints(profile.modules, way)
    ]
    # At the ends of the range, -1 and 1, a threshold can't tell `at most` from `below`.
    assert len(set(outcomes)) == len(outcomes) or (way == "threshold" and {1.0, -1.0} & {round(r, 5) for r in rho})
    if way in ("threshold", "above_null"):
        assert tuple(select(profile.modules, {way: other}, strict=strict)) in outcomes


def test_breakpoints_lie_between_neighbouring_modules() -> None:
    assert breakpoints(numbered(0.5, 0.4, 0.5, 0.7).modules) == [0.399995, 0.45, 0.6, 0.700005]
    assert breakpoints(numbered(0.5, 0.4, 0.5).modules, "lowest") == [0, 1, 3]
    with pytest.raises(DefenseError, match="'size'"):
        breakpoints(numbered(0.5).modules, "size")
