"""The `tracking` section: Weights & Biases."""

from typing import Annotated

from pydantic import Field

from safecomm.defenses.space import Strict

Name = Annotated[str, Field(pattern=r"^[^/\\#?%:\x00-\x1f]{1,128}$")]
"""A name as W&B accepts it."""


class Wandb(Strict):
    """Weights & Biases."""

    project: Name = "safecomm"
    """Project."""
    entity: Name | None = None
    """Team or user; by default W&B's default."""
    reveal: bool = False
    """Log harmful prompts and the answers to them in full; by default only their first characters."""


class Tracking(Strict):
    """Experiment tracking."""

    wandb: Wandb | None = Wandb()
    """Weights & Biases; `null` disables it."""
