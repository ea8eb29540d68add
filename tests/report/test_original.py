"""The over-refusal of trials above the original model's, on the same prompts."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from safecomm.report.original import beside_original
from safecomm.storage.store import Store


def evaluated(store: Store, verdicts: list[str], kind: str = "over_refusal") -> str:
    """Keeps an evaluation of two answers a prompt; returns its key."""
    rows = pd.DataFrame(
        {
            "benchmark": "b",
            "prompt_id": [f"p{place // 2}" for place in range(len(verdicts))],
            "kind": kind,
            "verdict": verdicts,
        }
    )
    inputs = {"verdicts": verdicts, "kind": kind}
    return store.obtain("evaluation", inputs, lambda out: rows.to_parquet(out / "rows.parquet")).name


def trials(*rows: tuple[str, str, str]) -> pd.DataFrame:
    columns = ["arm", "evaluation", "status"]
    return pd.DataFrame([dict(zip(columns, row, strict=True)) | {"split": "search", "seed": 0} for row in rows])


def test_the_rise_is_the_mean_over_prompts_that_both_have_a_verdict_on(tmp_path: Path) -> None:
    store = Store(tmp_path)
    original = evaluated(store, ["refused", "answered"] * 3)
    other = evaluated(store, ["refused", "refused", "answered", "answered", "unscored", "unscored"])
    table = beside_original(trials(("original", original, "done"), ("a", other, "done"), ("b", "", "failed")), store)
    assert list(table["refusal_rise"].iloc[:2]) == [0, 0]  # 1/2 more on one prompt, 1/2 less on another
    assert table["refusal_rise_low"].iloc[1] < -0.3 and table["refusal_rise_high"].iloc[1] > 0.3
    assert math.isnan(table["refusal_rise"].iloc[2])


@pytest.mark.parametrize("gone", ["original", "trial"])
def test_without_answers_to_compare_the_rise_is_unknown(tmp_path: Path, gone: str) -> None:
    store = Store(tmp_path)
    original, other = evaluated(store, ["refused"] * 4), evaluated(store, ["answered"] * 4)
    damaged = store.folder("evaluation", original if gone == "original" else other) / "lineage.json"
    damaged.write_text(json.dumps({}))
    table = beside_original(trials(("original", original, "done"), ("a", other, "done")), store)
    assert math.isnan(table["refusal_rise"].iloc[1])


def test_a_sweep_without_harmless_prompts_has_no_rise(tmp_path: Path) -> None:
    store = Store(tmp_path)
    original, other = (evaluated(store, [verdict] * 4, kind="red_team") for verdict in ("safe", "unsafe"))
    table = beside_original(trials(("original", original, "done"), ("a", other, "done")), store)
    assert table["refusal_rise"].isna().all()


def test_every_seed_is_compared_with_the_one_original_of_its_split(tmp_path: Path) -> None:
    store = Store(tmp_path)
    original, other = evaluated(store, ["refused"] * 4), evaluated(store, ["answered"] * 4)
    table = trials(("original", original, "done"), ("a", other, "done"), ("a", other, "done"))
    table["seed"], table["split"] = [0, 1, 0], ["search", "search", "report"]
    assert beside_original(table, store)["refusal_rise"].isna().tolist() == [False, False, True]


def test_no_trials_give_no_rise(tmp_path: Path) -> None:
    assert beside_original(pd.DataFrame(), Store(tmp_path)).empty
