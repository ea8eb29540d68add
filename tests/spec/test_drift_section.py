"""The section `drift`: its orders, its data, and what it refuses."""

import copy
from pathlib import Path
from typing import Any

import pytest
from small_sweep import LEAST

from safecomm.data.catalog.registry import load_examples
from safecomm.errors import UsageError
from safecomm.plan.data import all_prompts
from safecomm.spec import Sweep, read_sweep
from safecomm.spec.drift import Drift


def sweep(**parts: Any) -> dict[str, Any]:
    arms = {"safe_lora": [{"safe_lora": {"lowest": 2}}]}
    return {**copy.deepcopy(LEAST), "arms": arms, "drift": {"generations": ["lab-questions"]}, **parts}


def refusal(tmp_path: Path, **parts: Any) -> str:
    import yaml

    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep(**parts)))
    with pytest.raises(UsageError) as refused:
        read_sweep(tmp_path / "sweep.yaml")
    return str(refused.value)


@pytest.mark.parametrize(
    ("section", "why"),
    [
        ({}, "generations"),
        ({"generations": []}, "generations"),
        ({"generations": ["lab-harm"]}, "can't be used as train data"),
        ({"generations": ["lab-questions"], "orders": 2}, "have only 1"),
        ({"generations": ["lab-questions"], "policies": ["sometimes"]}, "never"),
        ({"generations": ["lab-questions"], "policies": ["never", "never"]}, "twice"),
        ({"generations": [{"name": "lab-questions", "slice": "5/4"}]}, "use 1/4 to 4/4"),
    ],
)
def test_a_section_that_cannot_run_is_refused(section: dict[str, Any], why: str, tmp_path: Path) -> None:
    assert why in refusal(tmp_path, drift=section)


def test_a_study_without_arms_or_training_or_with_stopped_engines_is_refused(tmp_path: Path) -> None:
    assert "no arm" in refusal(tmp_path, arms={})
    assert "phased: false" in refusal(tmp_path, cluster={"phased": True})
    factors = {"safe_merge": [{"safe_merge": {"weight": 0.7, "combine": "linear"}}]}
    study = {"generations": ["lab-questions"], "starts": ["merge"]}
    assert "merges factors of equal ranks" in refusal(tmp_path, arms=factors, drift=study)
    extrapolated = {"lox": [{"lox": {"directions": 2}}]}
    again = {"generations": ["lab-questions"], "starts": ["continue", "pool"]}
    assert "every generation must start there" in refusal(tmp_path, arms=extrapolated, drift=again)
    given = {"adapter": str(tmp_path), "safe_adapter": LEAST["finetune"]["safe_adapter"]}  # type: ignore[index]
    assert "already trained" in refusal(tmp_path, finetune=given)


def test_slices_are_for_training_only(tmp_path: Path) -> None:
    benchmarks = {**copy.deepcopy(LEAST["evaluate"]), "task": [{"name": "lab-telecom", "slice": "1/2"}]}  # type: ignore[dict-item]
    assert "slice is for training sets" in refusal(tmp_path, evaluate=benchmarks)


def test_orders_are_as_listed_then_reversed_then_others() -> None:
    study = Drift.model_validate({"generations": ["lab-questions"] * 3, "orders": 4})
    orders = study.permutations()
    assert orders[:2] == [(0, 1, 2), (2, 1, 0)]
    assert len(set(orders)) == 4
    assert study.permutations() == orders
    assert Drift.model_validate({"generations": ["lab-questions"]}).permutations() == [(0,)]


def test_slices_share_no_row_and_make_up_the_whole() -> None:
    whole = load_examples("lab-telecom").rows
    slices = [load_examples("lab-telecom", part=f"{number}/3").rows for number in (1, 2, 3)]
    assert sorted(map(repr, (row for part in slices for row in part))) == sorted(map(repr, whole))
    assert all(abs(len(part) - len(whole) / 3) < 0.1 * len(whole) for part in slices)


def test_what_a_generation_trains_on_is_left_out_of_the_benchmarks() -> None:
    parts = {"finetune": {**copy.deepcopy(LEAST["finetune"]), "data": ["lab-compliance"]}}  # type: ignore[dict-item]
    without, trained = (
        all_prompts(Sweep.model_validate(sweep(**parts, drift={"generations": [name]})))
        for name in ("lab-compliance", "lab-telecom")
    )
    assert len(trained) < len(without)
