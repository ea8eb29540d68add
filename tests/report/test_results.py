"""Pooling over seeds, the Pareto front, the recommended point and the best points, on trials with known results."""

import json
import math
from itertools import product
from operator import le
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd
import pytest

from safecomm.errors import UsageError
from safecomm.report.choice import Limits, best_of_arms, recommend
from safecomm.report.pareto import hypervolume, pareto_front
from safecomm.report.points import pooled, rate_in, rows_of
from safecomm.report.run_files import read_trials
from safecomm.report.summary import write_pareto
from safecomm.statistics.metrics import Rate, as_columns, mean_rate, rate
from safecomm.storage.names import ROWS
from safecomm.storage.store import Store


def trial(
    arm: str, asr: int, accuracy: int, refused: int = 0, *, weight: float | None = None, seed: int = 0, **more: Any
) -> dict[str, Any]:
    """Returns a done trial on the search split with so many hits among 100 prompts."""
    found = {
        "asr/h": rate(asr, 100, 100),
        "accuracy/t": rate(accuracy, 100, 100),
        "over_refusal/b": rate(refused, 100, 100),
    }
    found |= {name.split("/")[0]: mean_rate([one]) for name, one in found.items()}
    point = {} if weight is None else {"safe_merge.weight": weight}
    row = {"trial": f"{arm}-{weight}-{seed}", "arm": arm, "point": json.dumps(point), "seed": seed, "split": "search"}
    row["evaluation"] = f"{arm}{weight}{seed}"
    return {**row, "status": "done", "error": "", "log": "", **as_columns(found), **more}


def points(*trials: dict[str, Any]) -> pd.DataFrame:
    return pooled(pd.DataFrame(trials), None)


def names(frame: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(frame["arm"], frame["point"], strict=True))


def test_seeds_without_their_answers_count_as_one_seeds_prompts() -> None:
    rows = points(trial("undefended", 10, 80, seed=0), trial("undefended", 30, 90, seed=1), trial("original", 2, 50))
    assert list(rows["seeds"]) == [2, 1]
    first = rows.iloc[0]
    assert rate_in(first, "asr/h") == rate(20, 100, 100)
    assert rate_in(first, "asr") == mean_rate([rate(20, 100, 100)])
    assert (first["asr_min"], first["asr_max"]) == (0.1, 0.3)
    assert first["asr_runs_low"] == 0 and first["asr_runs_high"] > 0.95  # two runs say next to nothing of a third


def test_seeds_are_pooled_prompt_by_prompt(tmp_path: Path) -> None:
    """The same prompts refused in both seeds are one seed's evidence; others are more."""
    store = Store(tmp_path)

    def evaluated(unsafe: range) -> str:
        verdicts = ["unsafe" if at in unsafe else "safe" for at in range(100)]
        ids = [f"{at}" for at in range(100)]
        rows = pd.DataFrame({"prompt_id": ids, "verdict": verdicts, "kind": "red_team", "benchmark": "h"})
        return store.obtain("evaluation", {"unsafe": str(unsafe)}, lambda at: rows.to_parquet(at / ROWS)).name

    def pool(*unsafe: range) -> Rate:
        seeds = enumerate(map(evaluated, unsafe))
        trials = [trial("undefended", 10, 80, seed=seed) | {"evaluation": key} for seed, key in seeds]
        return rate_in(pooled(pd.DataFrame(trials), store).iloc[0], "asr/h")

    alike, apart = pool(range(10), range(1, 11)), pool(range(10), range(10, 20))
    assert (alike.n, alike.value) == (apart.n, apart.value) == (200, 0.1)
    assert alike.high > apart.high and alike.low < apart.low


def test_seeds_that_share_an_evaluation_count_once() -> None:
    rows = points(trial("original", 10, 50), trial("original", 10, 50, seed=1, evaluation="originalNone0"))
    assert (list(rows["seeds"]), list(rows["asr_n"])) == ([1], [100])


def test_failed_trials_and_other_splits_stay_apart() -> None:
    rows = points(
        trial("undefended", 10, 80),
        trial("undefended", 50, 80, split="report"),
        trial("undefended", 90, 0, seed=1, status="failed"),
    )
    assert list(zip(rows["split"], rows["asr"], strict=True)) == [("search", 0.1), ("report", 0.5)]


def test_no_points_without_done_trials() -> None:
    assert points(trial("undefended", 0, 0, status="failed")).empty


def test_front_keeps_undominated_points() -> None:
    rows = points(
        trial("original", 0, 99),
        trial("undefended", 60, 90),
        trial("safe_merge", 5, 80, 5, weight=0.5),
        trial("safe_merge", 5, 80, 9, weight=0.6),
        trial("safe_merge", 20, 90, 0, weight=0.7),
        trial("safe_merge", 3, 70, 0, weight=0.8),
    )
    front = pareto_front(rows, ["asr", "accuracy", "over_refusal"])
    assert [json.loads(point).get("safe_merge.weight") for point in front["point"]] == [0.8, 0.5, 0.7]


def test_front_includes_equal_points_and_excludes_unknown_rates() -> None:
    rows = points(
        trial("a", 5, 80, weight=1),
        trial("a", 5, 80, weight=2),
        trial("a", 1, 99, weight=3, **as_columns({"asr/h": rate(0, 0, 9)})),
    )
    assert len(pareto_front(rows, ["asr", "accuracy"])) == 2


def test_front_ignores_unmeasured_objectives() -> None:
    rows = points(trial("a", 5, 80), trial("b", 9, 70)).drop(columns="over_refusal")
    assert list(pareto_front(rows, ["asr", "accuracy", "over_refusal"])["arm"]) == ["a"]


def test_hypervolume_is_normalized_between_references_and_ideal() -> None:
    rows = points(
        trial("original", 0, 60, 5),
        trial("undefended", 80, 90, 0),
        trial("a", 20, 80, 5),  # as bad as a reference in over-refusal
        trial("b", 40, 80, 0, weight=1),
        trial("b", 20, 70, 0, weight=2),
    )
    assert hypervolume(rows, ["asr", "accuracy"]) == pytest.approx((1 - 20 / 80) * (1 - 20 / 40))
    assert hypervolume(rows, ["asr"]) == pytest.approx(0.75)
    # b with weight 1, and what weight 2 adds beside it; both are ideal in over-refusal.
    three = (1 - 40 / 80) * (1 - 20 / 40) + (1 - 20 / 80) * (1 - 30 / 40) - (1 - 40 / 80) * (1 - 30 / 40)
    assert hypervolume(rows, ["asr", "accuracy", "over_refusal"]) == pytest.approx(three)


def test_hypervolume_of_three_objectives_matches_grid_counting() -> None:
    random = Random(0)
    rows = points(
        trial("original", 100, 0, 100), *(trial("a", *random.choices(range(100), k=3), weight=w) for w in range(9))
    )
    front = [(row["asr"], 1 - row["accuracy"], row["over_refusal"]) for row in rows_of(rows[rows["arm"] == "a"])]
    middles = [(place + 0.5) / 50 for place in range(50)]
    covered = sum(any(all(map(le, point, cell)) for point in front) for cell in product(middles, repeat=3))
    assert hypervolume(rows, ["asr", "accuracy", "over_refusal"]) == pytest.approx(covered / 50**3, abs=0.02)


def test_hypervolume_needs_a_non_ideal_reference() -> None:
    assert hypervolume(points(trial("a", 5, 80)), ["asr", "accuracy"]) is None
    ideal = points(trial("original", 0, 60, 0), trial("undefended", 0, 100, 0), trial("a", 0, 80, 0))
    assert hypervolume(ideal, ["asr", "over_refusal"]) is None
    assert hypervolume(ideal, ["asr", "accuracy", "over_refusal"]) == pytest.approx(1.0)


def test_a_recommended_point_surely_keeps_the_margin_for_over_refusal() -> None:
    """Issue: at n = 50 a true rise of 8 points passed most of the time, as it was not significant."""

    def recommended(high: float) -> str:
        rows = points(
            trial("original", 0, 60, 10),
            trial("a", 0, 80, 10, weight=1, refusal_rise=0.02, refusal_rise_low=0.0, refusal_rise_high=high),
            trial("a", 0, 70, 10, weight=2, refusal_rise=0.0, refusal_rise_low=-0.02, refusal_rise_high=0.02),
        )
        return str((recommend(rows, Limits(0.1), rows.iloc[0].to_dict()) or {})["point"])

    assert '"safe_merge.weight": 1' in recommended(0.05)
    assert '"safe_merge.weight": 2' in recommended(0.051)


def test_recommends_the_highest_accuracy_whose_interval_meets_the_target() -> None:
    rows = points(
        trial("original", 1, 95, 3),
        trial("undefended", 60, 90),
        trial("safe_merge", 4, 88, weight=0.9),  # below 5%, but its interval is not
        trial("safe_merge", 0, 80, weight=0.7),
        trial("safe_merge", 0, 82, 40, weight=0.6),  # refuses far more than the original
        trial("safe_merge", 0, 70, weight=0.5),
    )
    found = recommend(rows, Limits(0.05), rows.iloc[0].to_dict())
    assert found is not None
    assert (found["arm"], json.loads(found["point"]), found["meets_target"]) == (
        "safe_merge",
        {"safe_merge.weight": 0.7},
        True,
    )
    assert "highest accuracy" in found["reason"]


@pytest.mark.parametrize(
    ("refused", "reason"), [(0, "no point keeps it at or below 1.0%"), (60, "surely keeps over-refusal")]
)
def test_without_a_suitable_point_the_safest_is_recommended(refused: int, reason: str) -> None:
    target = 0.01 if not refused else 0.2
    rows = points(
        trial("original", 1, 50, 2), trial("safe_merge", 2, 60, refused, weight=0.5), trial("undefended", 60, 90)
    )
    found = recommend(rows, Limits(target), rows.iloc[0].to_dict())
    assert found is not None
    assert (found["arm"], found["meets_target"]) == ("safe_merge", False)
    assert reason in found["reason"]


def test_a_point_that_writes_nonsense_is_recommended_only_if_all_do() -> None:
    """Issue: a broken model passes; its answers are no help, so judges call them safe."""

    def broken(incoherent: int) -> dict[str, Any]:
        found = {name: rate(incoherent, 100, 100) for name in ("incoherence", "incoherence/h")}
        return as_columns(found)

    sound, nonsense = (
        trial("lox", 4, 80, weight=1, **broken(10)),
        trial("lox", 0, 90, weight=3, **broken(11)),
    )
    found = recommend(points(sound, nonsense), Limits(0.2), None)
    assert found is not None and '"safe_merge.weight": 1' in found["point"]
    found = recommend(points(nonsense), Limits(0.2), None)
    assert found is not None and not found["meets_target"] and "incoherent" in found["reason"]


def test_recommends_without_original_but_not_without_points() -> None:
    rows = points(trial("undefended", 0, 90))
    assert (recommend(rows, Limits(0.05), None) or {})["arm"] == "undefended"
    assert recommend(rows.iloc[:0], Limits(0.05), None) is None


def test_the_best_of_an_arm_is_what_would_be_recommended_from_it_alone() -> None:
    rows = points(
        trial("undefended", 40, 90),
        trial("safe_merge", 14, 89, weight=0.9),
        trial("safe_merge", 10, 85, weight=0.8),
        trial("safe_merge", 8, 85, weight=0.7),
        trial("safe_merge", 0, 60, weight=0.5),
        trial("weak", 39, 90, weight=0.9),
        trial("weak", 30, 80, weight=0.5),
    )
    assert best_of_arms(rows, Limits(0.2), {**rows.iloc[0].to_dict(), "arm": "original"}) == {
        "undefended": "{}",
        "safe_merge": '{"safe_merge.weight": 0.7}',
        "weak": '{"safe_merge.weight": 0.5}',
    }


def test_pareto_file_is_json_with_points_as_objects(tmp_path: Path) -> None:
    trials = [trial("original", 1, 50, 2), trial("undefended", 40, 90), trial("safe_merge", 0, 80, weight=0.5)]
    for row in trials:
        row.update(as_columns({"over_refusal/b": rate(0, 0, 5), "over_refusal": rate(0, 0, 5)}))
    pd.DataFrame(trials).to_parquet(tmp_path / "trials.parquet")
    search = {"objectives": ["asr", "accuracy", "over_refusal"], "target_asr": 0.05}
    least = {"finetune": {"data": [{"name": "b"}]}, "arms": {}, "evaluate": {"judges": ["refusal"]}}
    rest = {"name": "a", "model": {"aligned": "m"}, **least}
    (tmp_path / "sweep.json").write_text(json.dumps({**rest, "search": search}))
    found = json.loads(
        write_pareto(tmp_path).read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON")
    )
    assert found["objectives"] == {"asr": "min", "accuracy": "max", "over_refusal": "min"}
    assert found["recommended"]["point"] == {"safe_merge.weight": 0.5}
    assert found["best"] == {"original": {}, "undefended": {}, "safe_merge": {"safe_merge.weight": 0.5}}
    assert [(entry["arm"], entry["accuracy"]["value"]) for entry in found["front"]] == [
        ("safe_merge", 0.8),
        ("undefended", 0.9),
    ]
    assert found["front"][0]["over_refusal"]["value"] is None


def test_key_order_of_a_point_does_not_matter(tmp_path: Path) -> None:
    rows = [trial("a", 1, 1), trial("a", 3, 1, seed=1)]
    rows[0]["point"], rows[1]["point"] = '{"x": 1, "y": 2}', '{"y": 2, "x": 1}'
    pd.DataFrame(rows).to_parquet(tmp_path / "trials.parquet")
    assert list(pooled(read_trials(tmp_path), None)["seeds"]) == [2]


def test_folder_without_results_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"can't read sweep\.json|has no trials\.parquet"):
        write_pareto(tmp_path)


def test_unmeasured_rates_read_as_unknown() -> None:
    assert math.isnan(rate_in({}, "asr").value)


def test_stopped_points_represent_an_arm_only_without_finished_ones() -> None:
    hopeless = {"status": "stopped", "share": 0.1}
    published = {"split": "report", "share": 1.0, "evaluation": "published"}
    rows = points(
        trial("safe_merge", 5, 80, weight=0.5, share=1.0),
        trial("safe_merge", 0, 99, weight=0.9, **hopeless),
        trial("safe_lora", 55, 99, weight=0.2, **published),
        trial("safe_lora", 60, 99, weight=0.1, **hopeless),
        trial("safe_lora", 50, 99, weight=0.2, **hopeless | {"share": 0.4}),
    )
    on_search = rows[rows["split"] == "search"]
    assert names(on_search) == [
        ("safe_merge", '{"safe_merge.weight": 0.5}'),
        ("safe_lora", '{"safe_merge.weight": 0.2}'),
    ]
    rows = on_search
    assert set(best_of_arms(rows, Limits(0.1), None)) == {"safe_merge", "safe_lora"}
    chosen = recommend(rows, Limits(0.2), None)
    assert chosen is not None and chosen["arm"] == "safe_merge"
    assert set(pareto_front(rows, ["asr", "accuracy"])["arm"]) == {"safe_merge"}
