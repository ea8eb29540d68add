"""Settings that give the same adapter are recognised before any trial runs."""

from pathlib import Path
from typing import Any

import pytest
from small_sweep import LEAST

from safecomm.search.equivalence import EquivalentPoints
from safecomm.search.profile_cache import ProfileCache
from safecomm.spec import Sweep
from safecomm.statistics.selection import ModuleProfile

RHO = {"q_proj": [0.30, 0.42, 0.50], "v_proj": [0.70, 0.80, 0.90]}


def sweep(storage: Path, seeds: int = 1, search: dict[str, Any] | None = None, **arms: Any) -> Sweep:
    rest = {"arms": arms, "search": search or {}, "seeds": seeds, "storage": str(storage)}
    return Sweep.model_validate(LEAST | rest)


def measured(shift: float = 0.0) -> list[ModuleProfile]:
    return [
        ModuleProfile(f"layers.{layer}.{kind}", rho + shift, 0.7, 1.0, 1.0, 1.0)
        for kind, values in RHO.items()
        for layer, rho in enumerate(values)
    ]


def equivalent(spec: Sweep, *trainings: dict[str, Any]) -> EquivalentPoints:
    profiles = ProfileCache(spec)
    for place, training in enumerate(trainings or ({},)):
        for seed in range(spec.seeds):
            profiles.keep(training, seed, measured(0.01 * (place + seed)))
    return EquivalentPoints(spec, profiles)


def lora(**settings: Any) -> list[dict[str, Any]]:
    return [{"safe_lora": settings}]


def merge(**settings: Any) -> list[dict[str, Any]]:
    return [{"safe_merge": settings}]


def test_a_grid_of_thresholds_has_only_its_distinct_outcomes(tmp_path: Path) -> None:
    grid = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    known = equivalent(sweep(tmp_path, arm=lora(threshold={"grid": grid})))
    points = known.points("arm")
    assert points is not None and len(points) == 10
    # nothing (0.1, 0.2), then 1, 1, 3 (0.5, 0.6), 4, 5 and all (0.9, 1.0) modules; 0.3 selects the module at 0.3
    assert len({known.key("arm", point) for point in points}) == 6


def test_without_a_profile_no_settings_are_equivalent(tmp_path: Path) -> None:
    spec = sweep(tmp_path, arm=lora(threshold={"grid": [0.1, 0.2]}))
    known = EquivalentPoints(spec, ProfileCache(spec))
    assert len({known.key("arm", point) for point in known.points("arm") or []}) == 2


def test_exact_has_one_value_per_outcome(tmp_path: Path) -> None:
    known = equivalent(sweep(tmp_path, arm=lora(threshold="exact"), few=lora(threshold={"exact": 3})))
    points = known.points("arm") or []
    assert len(points) == len({known.key("arm", point) for point in points}) == 7
    assert len(known.points("few") or []) == 3
    spec = sweep(tmp_path / "elsewhere", arm=lora(threshold="exact"))
    assert EquivalentPoints(spec, ProfileCache(spec)).points("arm") == []


def test_exact_per_module_type_uses_the_values_of_that_type(tmp_path: Path) -> None:
    known = equivalent(sweep(tmp_path, arm=lora(threshold={"q_proj": "exact", "v_proj": 0.85})))
    points = known.points("arm") or []
    assert [round(point["safe_lora.threshold.q_proj"], 2) for point in points] == [0.30, 0.36, 0.46, 0.50]


def test_exact_depends_on_the_training_before_it(tmp_path: Path) -> None:
    chain = [{"safe_instruct": {"ratio": {"grid": [0.01, 0.03]}}}, *lora(threshold="exact")]
    known = equivalent(sweep(tmp_path, arm=chain), {"ratio": 0.01}, {"ratio": 0.03})
    points = known.points("arm") or []
    assert len(points) == 14
    of_ratio = [
        {p["safe_lora.threshold"] for p in points if p["safe_instruct.ratio"] == ratio} for ratio in (0.01, 0.03)
    ]
    assert not of_ratio[0] & of_ratio[1]


def test_a_proposed_threshold_is_replaced_by_its_representative(tmp_path: Path) -> None:
    space = {"uniform": [0.2, 0.95]}
    known = equivalent(sweep(tmp_path, arm=merge(threshold=space, weight={"uniform": [0.5, 0.9]})))
    resolved = [known.resolved("arm", {"safe_merge.threshold": at, "safe_merge.weight": 0.7}) for at in (0.43, 0.49)]
    assert resolved[0] == resolved[1]
    assert resolved[0]["safe_merge.threshold"] == pytest.approx(0.46)
    lowest = known.resolved("arm", {"safe_merge.threshold": 0.21, "safe_merge.weight": 0.7})
    assert 0.2 <= lowest["safe_merge.threshold"] <= 0.3


def test_a_share_proposed_for_exact_selects_one_of_its_values(tmp_path: Path) -> None:
    known = equivalent(sweep(tmp_path, arm=merge(threshold="exact", weight={"uniform": [0.5, 0.9]})))
    shares = [0.0, 0.5, 0.999, 1.0]
    values = [
        known.resolved("arm", {"safe_merge.threshold": share, "safe_merge.weight": 0.7})["safe_merge.threshold"]
        for share in shares
    ]
    assert values == sorted(values) and values[-1] == values[-2] > 0.9 > 0.3 > values[0]


def test_where_no_module_is_merged_the_weight_makes_no_difference(tmp_path: Path) -> None:
    known = equivalent(sweep(tmp_path, arm=merge(threshold={"grid": [0.1, 0.6]}, weight={"grid": [0.5, 0.7]})))
    assert len({known.key("arm", point) for point in known.points("arm") or []}) == 3


def test_settings_are_equivalent_only_if_they_are_for_every_seed(tmp_path: Path) -> None:
    spec = sweep(tmp_path, seeds=2, arm=lora(threshold={"grid": [0.41, 0.415, 0.425]}))
    known = equivalent(spec)  # the second seed's modules lie 0.01 higher
    keys = [known.key("arm", point) for point in known.points("arm") or []]
    assert keys[0] == keys[1] != keys[2]


def test_initial_points_come_before_the_combinations(tmp_path: Path) -> None:
    search = {"arms": {"arm": {"points": ["published", {"safe_lora.threshold": 0.35}]}}}
    known = equivalent(sweep(tmp_path, search=search, arm=lora(threshold={"grid": [0.5]})))
    assert [point["safe_lora.threshold"] for point in known.points("arm") or []] == [0.6, 0.35, 0.5]


def test_trainings_are_those_of_lists_and_unknown_for_ranges(tmp_path: Path) -> None:
    chain = [{"finetune": {"rank": {"grid": [4, 8]}}}, {"safe_instruct": {"ratio": 0.03}}]
    spec = sweep(
        tmp_path, lists=chain, range=[{"safe_instruct": {"ratio": {"uniform": [0.01, 0.1]}}}], plain=lora(lowest=2)
    )
    known = equivalent(spec)
    assert [len(known.trainings(arm) or []) for arm in ("lists", "plain")] == [2, 1]
    assert known.trainings("range") is None
