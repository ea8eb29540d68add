"""`--storage` is a path and not YAML."""

from pathlib import Path

import pytest

from safecomm.cli.sweeps import read

LAB = Path(__file__).parents[2] / "sweeps" / "lab.yaml"


@pytest.mark.parametrize("storage", ["runs #1", "2024", "yes", "a: b", "[x]", "'"])
def test_a_storage_is_taken_as_it_is_written(storage: str) -> None:
    assert read(LAB, None, storage).storage == storage
