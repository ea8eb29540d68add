"""A plan states the memory that Safe Delta takes on the node of a trial."""

from pathlib import Path

import pytest

from safecomm.plan.node_memory import moments_bytes, node_memory
from safecomm.plan.shapes import find_shape
from safecomm.spec import read_sweep

SWEEPS = Path(__file__).parents[2] / "sweeps"
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
DELTA = "arms={delta: [{safe_delta: {budget: 0.4}}]}"


@pytest.mark.parametrize(
    ("targets", "numbers"),
    [
        (["q_proj"], 4096**2),
        (["q_proj", "v_proj"], 4096**2),
        (["down_proj"], 14336**2),
        (ALL, 3 * 4096**2 + 14336**2),
    ],
)
def test_modules_that_read_the_same_input_share_its_moments(targets: list[str], numbers: int) -> None:
    assert moments_bytes(find_shape("meta-llama/Llama-3.1-8B-Instruct"), targets) == 32 * 4 * numbers


def test_a_sweep_with_safe_delta_says_how_much_memory_a_node_needs() -> None:
    eight_b = SWEEPS / "medical.yaml"
    assert node_memory(read_sweep(eight_b)) == []
    (line,) = node_memory(read_sweep(eight_b, [DELTA]))
    assert line == (
        "safe_delta, on a trial's node, not a GPU: about 31.9 GiB while it reads the aligned model, 2.0 GiB of it for "
        "the inputs"
    )


def test_the_labs_models_need_no_line() -> None:
    assert node_memory(read_sweep(SWEEPS / "lab-attacks.yaml")) == []


def test_what_is_not_known_is_called_so() -> None:
    (line,) = node_memory(read_sweep(SWEEPS / "medical.yaml", [DELTA, "model.aligned=acme/model"]))
    assert "not estimated: " in line
