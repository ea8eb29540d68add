"""A few draws of every simulation in `benchmarks/coverage.py`: they run, and nothing is far from its nominal level."""

import numpy as np
import pytest
from benchmark import benchmark

simulations = benchmark("coverage")
FIRST = {name: (should_be, function, cell) for name, should_be, function, cell in reversed([*simulations.cells()])}
ALLOWED = {"95%": (0.88, 1.0), ">= 95%": (0.91, 1.0), ">= 90%": (0.84, 1.0), "<= 5%": (0.0, 0.1), "80%": (0.65, 0.92)}


@pytest.mark.parametrize("name", FIRST)
def test_each_simulation_is_near_its_nominal_level(name: str) -> None:
    should_be, function, cell = FIRST[name]
    rng = np.random.default_rng(0)
    share = sum(function(rng, cell) for _ in range(150)) / 150
    low, high = ALLOWED[should_be]
    assert low <= share <= high
