"""The `tracking` section: Weights & Biases."""

from safecomm.defenses.space import Strict


class Wandb(Strict):
    """Weights & Biases."""

    project: str = "safecomm"
    """Project."""
    entity: str | None = None
    """Team or user; by default W&B's default."""
    reveal: bool = False
    """Log harmful prompts and the answers to them in full; by default only their first characters."""


class Tracking(Strict):
    """Experiment tracking."""

    wandb: Wandb | None = Wandb()
    """Weights & Biases; `null` disables it."""
