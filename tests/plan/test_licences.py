"""A plan names the training data that rule out commercial use."""

from pathlib import Path

import pytest

from safecomm.plan.data import non_commercial
from safecomm.spec import read_sweep

SWEEPS = Path(__file__).parents[2] / "sweeps"


def test_training_data_that_are_not_for_commercial_use_are_named_by_key() -> None:
    assert non_commercial(read_sweep(SWEEPS / "lab.yaml")) == []
    lines = non_commercial(read_sweep(SWEEPS / "paper-llama-3.1-8b.yaml"))
    told = (
        "safety-tuned-llamas is CC BY-NC 4.0, so its adapters are not for commercial use; `safecomm data safety` makes "
        "safety examples from the model's answers to your own prompts"
    )
    assert lines == [f"finetune.safety_data: {told}", f"finetune.safe_adapter.data: {told}"]


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("*.yaml")), ids=lambda path: path.stem)
def test_only_bundled_sweeps_that_repeat_a_paper_rule_out_commercial_use(path: Path) -> None:
    sweep = read_sweep(path)
    assert bool(non_commercial(sweep)) == (sweep.paper is not None)
