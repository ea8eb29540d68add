"""The section `tamper` accepts what can be trained on and measured, and refuses the rest with its key."""

import copy
from typing import Any

import pytest
from pydantic import ValidationError
from small_sweep import LEAST

from safecomm.spec import Sweep


def sweep(**tamper: Any) -> Sweep:
    return Sweep.model_validate({**copy.deepcopy(LEAST), "arms": {}, "tamper": tamper})


def test_a_leading_0_is_the_released_adapter_and_needs_no_training() -> None:
    section = sweep(data="lab-questions", harmful={"name": "lab-compliance", "limit": 10}, steps=[0, 5, 10]).tamper
    assert section
    assert section.steps == [5, 10]
    assert section.curves == ["data", "harmful"]


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        ({}, "set data (harmless examples), harmful (examples that comply), or both"),
        ({"data": "lab-questions", "harmful_after_data": True}, "trains on both; set data and harmful"),
        ({"data": "lab-questions", "steps": [5, 5]}, "must rise, not [5, 5]"),
        ({"data": "lab-questions", "steps": [0]}, "has no step above 0; add one"),
        ({"data": "lab-questions", "steps": [-1]}, "greater than or equal to 0"),
        ({"data": "lab-harm"}, "lab-harm"),
        ({"harmful": "lab-safety"}, "lab-safety"),
        ({"data": "lab-questions", "learning_rate": []}, "at least 1 item"),
        ({"data": "lab-questions", "learning_rate": [1e-3, 0.001]}, "lists a learning rate twice"),
        ({"data": "lab-questions", "max_accuracy_drop": 2}, "less than or equal to 1"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(tamper: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        sweep(**tamper)
    assert message in str(refused.value)


def test_harmful_examples_after_harmless_ones_are_a_curve_without_a_dataset_of_its_own() -> None:
    both = {"data": "lab-questions", "harmful": "lab-compliance"}
    section = sweep(**both, harmful_after_data=True).tamper
    assert section
    assert section.curves == ["data", "harmful", "data_then_harmful"]
    assert list(section.datasets) == ["tamper.data", "tamper.harmful"]
    assert "harmful_after_data" not in sweep(**both).resolved()["tamper"]


def test_sweeps_without_it_are_resolved_as_before() -> None:
    assert "tamper" not in Sweep.model_validate({**copy.deepcopy(LEAST), "arms": {}}).resolved()
