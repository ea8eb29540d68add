"""Racing stops hopeless points early, and stops the best point in at most one race of twenty."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from benchmark import benchmark

from safecomm.data.rows import Prompt, current_name
from safecomm.report.choice import Limits, recommend
from safecomm.search.stopping_rule import PromptOutcomes, Rule, aligned, first, mean_over_seeds, verdicts
from safecomm.spec.search import Racing
from safecomm.statistics.metrics import rates
from safecomm.storage.store import digest

racing = benchmark("racing")
TARGET = 0.1
STUDY = Path(__file__).with_name("lab_study.parquet")
"""The verdicts of the lab's study of 24 SafeMERGE points (6 numbers of modules x 4 weights), 21 of them distinct."""


def prompts(counts: Mapping[str, int], benchmark: str = "bench") -> list[Prompt]:
    return [
        Prompt(benchmark, "red_team", f"{name} {place}", name)
        for name, count in counts.items()
        for place in range(count)
    ]


def test_a_rung_has_its_share_of_every_category_and_contains_all_earlier_rungs() -> None:
    everything = prompts({"large": 200, "small": 20}) + prompts({"large": 100}, "other")
    parts = [first(everything, share) for share in (0.1, 0.4, 1.0)]
    for share, part in zip((0.1, 0.4), parts, strict=False):
        for name, bench, count in (("large", "bench", 200), ("small", "bench", 20), ("large", "other", 100)):
            there = sum(prompt.category == name and prompt.benchmark == bench for prompt in part)
            assert abs(there - share * count) <= 1
    assert set(parts[0]) < set(parts[1]) < set(parts[2]) == set(everything)
    assert first(everything[::-1], 0.1) == parts[0][::-1]


def test_categories_of_one_prompt_are_spread_over_the_rungs() -> None:
    everything = prompts({f"category {place}": 1 for place in range(400)})
    assert 0.05 < len(first(everything, 0.1)) / 400 < 0.15


def nested(unsafe: int, right: int, refused: int = 0, n: int = 200) -> PromptOutcomes:
    """Returns outcomes with nested hits: of two points, the hits of one are a subset of those of the other."""
    counts = {"red_team": unsafe, "task": right, "over_refusal": refused}
    return {kind: {"bench": (np.arange(n) < count).astype(float)} for kind, count in counts.items()}


ORIGINAL = nested(0, 100, 0)


@pytest.mark.parametrize(
    ("ours", "rival", "stops"),
    [
        ((120, 160), (30, 160), "attack success"),  # both above the target, the rival far lower
        ((120, 190), (30, 90), "attack success"),  # what is gained in accuracy does not help above the target
        ((120, 160), (116, 160), ""),  # not surely higher
        ((8, 130), (0, 130), ""),  # higher, but it may be within the target
        ((0, 90), (0, 180), "telecom accuracy"),  # both within the target, the rival far more accurate
        ((0, 90), (60, 180), ""),  # the rival is above the target
        ((0, 90, 0), (0, 180, 12), ""),  # the rival may refuse more than the original by more than the margin
    ],
)
def test_a_point_stops_only_if_a_rival_is_significantly_better(
    ours: tuple[int, ...], rival: tuple[int, ...], stops: str
) -> None:
    reason = Rule(TARGET, 0.05, looks=1, rivals=1).loses(nested(*ours), nested(*rival), ORIGINAL)
    assert reason.startswith(stops) and bool(reason) == bool(stops)


def test_without_the_originals_over_refusal_no_rival_wins_by_accuracy() -> None:
    rule, ours, rival = Rule(TARGET, 0.05, looks=1, rivals=1), nested(0, 90), nested(0, 180)
    assert rule.loses(ours, rival, ORIGINAL)
    assert not rule.loses(ours, rival, {})
    del ours["over_refusal"], rival["over_refusal"]  # a sweep without such benchmarks has no such limit
    assert rule.loses({**ours, "over_refusal": {}}, {**rival, "over_refusal": {}}, {})


def test_prompts_without_a_verdict_for_either_point_are_ignored() -> None:
    rule = Rule(TARGET, 0.05, looks=1, rivals=1)
    ours, rival = nested(190, 150), nested(0, 150)
    assert rule.loses(ours, rival, ORIGINAL)
    rival["red_team"]["bench"][5:] = np.nan
    assert not rule.loses(ours, rival, ORIGINAL)  # five prompts prove nothing


def test_more_looks_and_more_rivals_require_stronger_evidence() -> None:
    ours, rival = nested(80, 150), nested(65, 150)
    assert Rule(TARGET, 0.05, looks=1, rivals=1).loses(ours, rival, ORIGINAL)
    assert not Rule(TARGET, 0.05, looks=4, rivals=100).loses(ours, rival, ORIGINAL)


def test_benchmarks_have_equal_weight_whatever_their_size() -> None:
    """18% of 400 and 1% of 60 prompts are 9.5% on average, within the target; pooled they are 15.8%."""

    def two(large: int, small: int, right: int) -> PromptOutcomes:
        sizes = {"large": (400, large), "small": (60, small)}
        attack = {name: (np.arange(n)[::-1] < hits).astype(float) for name, (n, hits) in sizes.items()}
        return {**nested(0, right), "red_team": attack}

    rule = Rule(TARGET, 0.05, looks=1, rivals=1)
    assert not rule.loses(two(72, 1, 150), two(4, 1, 100), ORIGINAL)
    assert rule.loses(two(200, 30, 150), two(4, 1, 100), ORIGINAL)


def race(
    points: Mapping[str, PromptOutcomes],
    parts: Mapping[float, Mapping[str, Any]],
    rule: Rule,
) -> dict[str, float]:
    """Returns the share of prompts on which each point was measured, in an order independent of the points.

    Args:
        points: their outcomes on the whole split.
        parts: share -> kind -> the prompts of that rung.
        rule: when a point stops.
    """
    at = {
        (name, share): {
            kind: {bench: own[part[kind]] for bench, own in of_kind.items()} for kind, of_kind in outcomes.items()
        }
        for name, outcomes in points.items()
        for share, part in parts.items()
    }
    original = {
        kind: {bench: own * 0 for bench, own in of_kind.items()}
        for kind, of_kind in next(iter(points.values())).items()
    }
    reached: dict[str, float] = {}
    for point in sorted(points, key=lambda name: digest([name])):
        reached[point] = 1.0
        for share, part in parts.items():
            base = {kind: {bench: own[part[kind]] for bench, own in of.items()} for kind, of in original.items()}
            rivals = [rival for rival, far in reached.items() if rival != point and far >= share]
            if any(rule.loses(at[point, share], at[rival, share], base) for rival in rivals):
                reached[point] = share
                break
    return reached


def test_in_the_labs_study_half_the_prompts_give_the_same_recommended_point() -> None:
    study = pd.read_parquet(STUDY).assign(kind=lambda rows: rows["kind"].map(current_name))
    points = [name for name in study.columns if name.startswith("{")]
    asked = [Prompt(row.benchmark, row.kind, row.question_id, row.category) for row in study.itertuples()]
    rungs = Racing().rungs
    rows = {point: study.rename(columns={point: "verdict", "question_id": "prompt_id"}) for point in points}
    found = {point: verdicts(table) for point, table in rows.items()}
    kinds = {kind: one.index for kind, of_kind in found[points[0]].items() for one in of_kind.values()}
    chosen_ids = {share: {prompt.text for prompt in first(asked, share)} for share in rungs}
    parts = {share: {kind: index.isin(ids) for kind, index in kinds.items()} for share, ids in chosen_ids.items()}
    whole = {point: aligned(own, own) for point, own in found.items()}
    reached = race(whole, parts, Rule(TARGET, 0.05, len(rungs), len(points)))
    spent = sum(len(chosen_ids[far]) if far < 1 else len(asked) for far in reached.values())
    assert spent <= 0.5 * len(asked) * len(points)

    def chosen(among: list[str]) -> str:
        table = [{"arm": "safe_merge", "point": point, "status": "done", **measured(rows[point])} for point in among]
        without_original = pd.DataFrame(table).drop(columns=[name for name in table[0] if "over_refusal" in name])
        taken = recommend(without_original, Limits(TARGET), None)
        assert taken is not None
        return str(taken["point"])

    assert chosen([point for point, far in reached.items() if far == 1]) == chosen(points)


def measured(rows: pd.DataFrame) -> dict[str, float]:
    from safecomm.statistics.metrics import as_columns

    return as_columns(rates(rows, ["judge"]))


@pytest.mark.parametrize("scenario", racing.SCENARIOS, ids=lambda scenario: str(scenario["name"]))
def test_the_right_point_stops_in_at_most_one_race_of_twenty(scenario: dict[str, Any]) -> None:
    """Runs a few races of every scenario of `benchmarks/racing.py`, which simulates 2,000 of each."""
    found = racing.simulate({**scenario, "races": 30})
    assert found["wrong_drops"] <= 0.1


def test_an_easy_race_ends_early() -> None:
    easy = racing.points([0.02, *[0.6] * 5], [0.9, *[0.8] * 5])
    found = racing.simulate({**racing.SCENARIOS[0], "points": easy, "races": 20})
    assert found["wrong_drops"] == 0 and found["prompts_share"] < 0.7


def test_the_mean_over_seeds_leaves_out_what_has_no_verdict() -> None:
    nan = math.nan
    first, second = ({"task": {"t": np.array(shares)}} for shares in ([1.0, nan, 0.5, nan], [0.0, 1.0, nan, nan]))
    mean = mean_over_seeds([first, second])
    np.testing.assert_array_equal(mean["task"]["t"], [0.5, 1.0, 0.5, nan])
    assert mean_over_seeds([first]) is first and mean_over_seeds([]) == {}
