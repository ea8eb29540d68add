"""A sweep whose driver is killed three times gives the same results as an undisturbed one, and repeats no work."""

import json
from pathlib import Path

import pandas as pd
import pytest
from small_sweep import comparable, kill_at, offline, run_sweep_file, stages, write_sweep

from safecomm.storage.names import LINEAGE

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.slow, pytest.mark.faults]

MOMENTS = ("store/scratch/finetune-*-checkpoints", "small/trials/*-search.json", "small/trials/*-report.json")
"""What there is when the driver is killed: a fine-tune that has begun, a trial of the search, one that is published."""


@pytest.fixture(scope="module")
def sweep_file(lab: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("killed"), lab)


@pytest.fixture(scope="module")
def killed(sweep_file: Path) -> list[dict[str, float]]:
    """The stages that were finished each time that the driver was killed."""
    left = []
    for moment in MOMENTS:
        kill_at(moment, sweep_file, offline())
        left.append(stages(sweep_file.parent / "runs"))
    run_sweep_file(sweep_file)
    return left


@pytest.fixture(scope="module")
def storage(sweep_file: Path, killed: list[dict[str, float]]) -> Path:
    return sweep_file.parent / "runs"


def test_work_finished_before_a_kill_is_not_repeated(storage: Path, killed: list[dict[str, float]]) -> None:
    after = stages(storage)
    for before in killed:
        assert before == {stage: after[stage] for stage in before}
    assert len(killed[0]) < len(killed[1]) < len(killed[2]) < len(after)


def test_every_shared_stage_ran_once(storage: Path) -> None:
    made = [json.loads(path.read_text()) for path in storage.glob(f"store/finetune/*/{LINEAGE}")]
    assert len(made) == 3  # telecom alone, telecom with safety examples, safety alone


def test_no_prompt_was_answered_twice(storage: Path) -> None:
    answered = 0
    for folder in (storage / "store" / "responses").iterdir():
        asked = pd.concat([pd.read_parquet(part)["question_id"] for part in folder.glob("*.parquet")])
        assert asked.is_unique
        answered += len(asked)
    assert answered


def test_results_match_those_of_an_uninterrupted_sweep(storage: Path, undisturbed: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(comparable(storage / "small" / "trials.parquet"), undisturbed)
