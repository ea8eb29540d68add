"""Prompts that trials refuse more or less often than the original model are counted."""

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


def test_prompts_refused_more_and_less_often_are_counted(tmp_path: Path) -> None:
    store = Store(tmp_path)
    original = evaluated(store, ["refused", "answered"] * 3)
    other = evaluated(store, ["refused", "refused", "answered", "answered", "answered", "unscored"])
    table = beside_original(trials(("original", original, "done"), ("a", other, "done"), ("b", "", "failed")), store)
    assert list(table["refused_more"].iloc[:2]) == [0, 1]
    assert list(table["refused_less"].iloc[:2]) == [0, 2]
    assert math.isnan(table["refused_more"].iloc[2])


@pytest.mark.parametrize("gone", ["original", "trial"])
def test_counts_are_unknown_without_answers(tmp_path: Path, gone: str) -> None:
    store = Store(tmp_path)
    original, other = evaluated(store, ["refused"] * 4), evaluated(store, ["answered"] * 4)
    damaged = store.folder("evaluation", original if gone == "original" else other) / "lineage.json"
    damaged.write_text(json.dumps({}))
    table = beside_original(trials(("original", original, "done"), ("a", other, "done")), store)
    assert math.isnan(table["refused_more"].iloc[1])


def test_a_sweep_without_harmless_prompts_has_no_counts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    original, other = (evaluated(store, [verdict] * 4, kind="red_team") for verdict in ("safe", "unsafe"))
    table = beside_original(trials(("original", original, "done"), ("a", other, "done")), store)
    assert table["refused_more"].isna().all()


def test_other_seeds_and_splits_are_not_compared(tmp_path: Path) -> None:
    store = Store(tmp_path)
    original, other = evaluated(store, ["refused"] * 4), evaluated(store, ["answered"] * 4)
    table = trials(("original", original, "done"), ("a", other, "done"), ("a", other, "done"))
    table["seed"], table["split"] = [0, 1, 0], ["search", "search", "report"]
    assert beside_original(table, store)["refused_less"].isna().tolist() == [False, True, True]


def test_no_trials_have_no_counts(tmp_path: Path) -> None:
    assert beside_original(pd.DataFrame(), Store(tmp_path)).empty
