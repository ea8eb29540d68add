"""A race gives up the hopeless points early, and the best one in at most one race of twenty."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from safecomm.data.rows import Prompt, current_name
from safecomm.report.choice import recommend
from safecomm.search.stopping_rule import PromptOutcomes, Rule, first, verdicts
from safecomm.spec.search import Racing
from safecomm.statistics.metrics import rates
from safecomm.storage.store import digest

TARGET = 0.1
STUDY = Path(__file__).with_name("lab_study.parquet")
"""The verdicts of the lab's study of 24 SafeMERGE points (6 numbers of modules x 4 weights), 21 of them distinct."""


def prompts(counts: Mapping[str, int], benchmark: str = "bench") -> list[Prompt]:
    return [
        Prompt(benchmark, "red_team", f"{name} {place}", name)
        for name, count in counts.items()
        for place in range(count)
    ]


def test_a_rung_has_its_share_of_every_category_and_a_later_one_all_of_an_earlier() -> None:
    everything = prompts({"large": 200, "small": 20}) + prompts({"large": 100}, "other")
    parts = [first(everything, share) for share in (0.1, 0.4, 1.0)]
    for share, part in zip((0.1, 0.4), parts, strict=False):
        for name, benchmark, count in (("large", "bench", 200), ("small", "bench", 20), ("large", "other", 100)):
            there = sum(prompt.category == name and prompt.benchmark == benchmark for prompt in part)
            assert abs(there - share * count) <= 1
    assert set(parts[0]) < set(parts[1]) < set(parts[2]) == set(everything)
    assert first(everything[::-1], 0.1) == parts[0][::-1]


def test_categories_of_one_prompt_are_not_all_left_to_the_end() -> None:
    everything = prompts({f"category {place}": 1 for place in range(400)})
    assert 0.05 < len(first(everything, 0.1)) / 400 < 0.15


def nested(unsafe: int, right: int, refused: int = 0, n: int = 60) -> PromptOutcomes:
    """Those of nested prompts: of two points, the one with fewer hits has none that the other lacks."""
    counts = {"red_team": unsafe, "task": right, "over_refusal": refused}
    return {kind: (np.arange(n) < count).astype(float) for kind, count in counts.items()}


@pytest.mark.parametrize(
    ("ours", "rival", "stops"),
    [
        ((40, 50), (10, 50), "attack success"),  # both above the target, the rival far lower
        ((40, 60), (10, 30), "attack success"),  # what is gained in accuracy does not help above the target
        ((40, 50), (38, 50), ""),  # not surely higher
        ((4, 40), (0, 40), ""),  # higher, but it may be within the target
        ((0, 30), (0, 55), "telecom accuracy"),  # both within the target, the rival far more accurate
        ((0, 30), (20, 55), ""),  # the rival is above the target
        ((0, 30, 0), (0, 55, 5), ""),  # the rival refuses more
    ],
)
def test_a_point_stops_only_where_a_rival_is_surely_the_better_choice(
    ours: tuple[int, ...], rival: tuple[int, ...], stops: str
) -> None:
    reason = Rule(TARGET, 0.05, looks=1, rivals=1).loses(nested(*ours), nested(*rival))
    assert reason.startswith(stops) and bool(reason) == bool(stops)


def test_prompts_that_either_has_no_verdict_on_count_for_neither() -> None:
    rule = Rule(TARGET, 0.05, looks=1, rivals=1)
    ours, rival = nested(60, 50), nested(0, 50)
    assert rule.loses(ours, rival)
    rival["red_team"][5:] = np.nan
    assert not rule.loses(ours, rival)  # five prompts prove nothing


def test_more_looks_and_more_rivals_ask_for_stronger_evidence() -> None:
    ours, rival = nested(30, 50), nested(22, 50)
    assert Rule(TARGET, 0.05, looks=1, rivals=1).loses(ours, rival)
    assert not Rule(TARGET, 0.05, looks=4, rivals=100).loses(ours, rival)


def race(
    points: Mapping[str, PromptOutcomes], parts: Mapping[float, Mapping[str, Any]], rule: Rule
) -> dict[str, float]:
    """Returns how far each point was measured, in an order that has nothing to do with the points.

    Args:
        points: their verdicts on the whole split.
        parts: share -> kind -> the questions of that rung.
        rule: when a point stops.
    """
    at = {
        (name, share): {kind: hits[kind][chosen] for kind, chosen in part.items()}
        for name, hits in points.items()
        for share, part in parts.items()
    }
    reached: dict[str, float] = {}
    for point in sorted(points, key=lambda name: digest([name])):
        reached[point] = 1.0
        for share in parts:
            rivals = [rival for rival, far in reached.items() if rival != point and far >= share]
            if any(rule.loses(at[point, share], at[rival, share]) for rival in rivals):
                reached[point] = share
                break
    return reached


def test_in_the_labs_study_half_the_prompts_give_the_same_recommended_point() -> None:
    study = pd.read_parquet(STUDY).assign(kind=lambda rows: rows["kind"].map(current_name))
    points = [name for name in study.columns if name.startswith("{")]
    asked = [Prompt(row.benchmark, row.kind, row.question_id, row.category) for row in study.itertuples()]
    rungs = Racing().rungs
    rows = {point: study.rename(columns={point: "verdict"}) for point in points}
    found = {point: verdicts(table) for point, table in rows.items()}
    kinds = {kind: series.index for kind, series in found[points[0]].items()}
    chosen_ids = {share: {prompt.text for prompt in first(asked, share)} for share in rungs}
    parts = {share: {kind: index.isin(ids) for kind, index in kinds.items()} for share, ids in chosen_ids.items()}
    whole = {point: {kind: series.to_numpy() for kind, series in own.items()} for point, own in found.items()}
    reached = race(whole, parts, Rule(TARGET, 0.05, len(rungs), len(points)))
    spent = sum(len(chosen_ids[far]) if far < 1 else len(asked) for far in reached.values())
    assert spent <= 0.5 * len(asked) * len(points)

    def chosen(among: list[str]) -> str:
        table = [{"arm": "safe_merge", "point": point, "status": "done", **measured(rows[point])} for point in among]
        taken = recommend(pd.DataFrame(table), TARGET, None)
        assert taken is not None
        return str(taken["point"])

    assert chosen([point for point, far in reached.items() if far == 1]) == chosen(points)


def measured(rows: pd.DataFrame) -> dict[str, float]:
    from safecomm.statistics.metrics import as_columns

    return as_columns(rates(rows.assign(prompt_id=rows["question_id"]), ["judge"]))


def test_the_best_point_stops_in_at_most_one_race_of_twenty() -> None:
    """400 races of 12 points, half of them near the best one and near the target, where errors would be made."""
    rng = np.random.default_rng(0)
    sizes = {"red_team": 200, "task": 120, "over_refusal": 100}
    shares = Racing().rungs
    rule = Rule(TARGET, 0.05, len(shares), 12)
    parts = {share: {kind: slice(round(share * n)) for kind, n in sizes.items()} for share in shares}
    wrong, spent, races = 0, 0.0, 400
    for _ in range(races):
        asr = np.concatenate([rng.uniform(0.04, 0.2, 6), rng.uniform(0.1, 0.9, 6)])
        accuracy = np.concatenate([rng.uniform(0.85, 0.95, 6), rng.uniform(0.5, 0.97, 6)])
        drawn = {f"{at}": drawn_hits(rng, sizes, asr[at], accuracy[at], 0.02) for at in range(12)}
        reached = race(drawn, parts, rule)
        safe = [at for at in range(12) if asr[at] <= TARGET]
        best = max(safe, key=lambda at: accuracy[at]) if safe else int(np.argmin(asr))
        wrong += reached[f"{best}"] < 1
        spent += sum(reached.values()) / 12 / races
    assert wrong / races <= 0.05
    assert spent < 0.8  # even here, where half of the points are close


def drawn_hits(
    rng: np.random.Generator, sizes: Mapping[str, int], asr: float, accuracy: float, refused: float
) -> PromptOutcomes:
    """Draws a point's verdicts; half of what decides one lies in the prompt, the same for all points."""
    found = {}
    for (kind, n), rate in zip(sizes.items(), (asr, accuracy, refused), strict=True):
        hard = np.random.default_rng(n).uniform(size=n)  # of the prompt
        chance = np.where(rng.uniform(size=n) < 0.5, hard, rng.uniform(size=n))
        found[kind] = (chance < rate).astype(float)
    return found
