"""Time limits for the start of engines."""

from pathlib import Path

NODES_SECONDS = 1800.0
"""Time for the cluster to start nodes."""
ENGINE_SECONDS = 1200.0
"""Time for imports, compilation and CUDA graphs."""
BYTES_PER_SECOND = 100e6
"""Read speed of the slowest supported storage, at which a 70B model in bf16 takes 23 minutes."""


def engine_seconds(model: Path) -> float:
    """Returns the time limit in seconds for the start of an engine, from the size of the model's checkpoint."""
    return ENGINE_SECONDS + sum(file.stat().st_size for file in model.glob("*.safetensors")) / BYTES_PER_SECOND


def fleet_seconds(model: Path) -> float:
    """Returns the time limit in seconds for a fleet: its nodes, a copy of the model on each, and the engines."""
    return NODES_SECONDS + 2 * engine_seconds(model)
