"""How long engines may take to start."""

from pathlib import Path

NODES_SECONDS = 1800.0
"""For the cluster to provide nodes."""
ENGINE_SECONDS = 1200.0
"""For imports, compilation and CUDA graphs."""
BYTES_PER_SECOND = 100e6
"""The slowest storage that weights are read from; at this pace a 70B model in bf16 takes 23 minutes."""


def engine_seconds(model: Path) -> float:
    """Returns how long an engine may take to start with a model, by the size of its checkpoint."""
    return ENGINE_SECONDS + sum(file.stat().st_size for file in model.glob("*.safetensors")) / BYTES_PER_SECOND


def fleet_seconds(model: Path) -> float:
    """Returns how long a fleet may take: its nodes, a copy of the model on each, and the engines."""
    return NODES_SECONDS + 2 * engine_seconds(model)
