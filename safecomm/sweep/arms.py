"""Arms: which of their settings are searched, and the chain of defenses that one point of an arm is."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from safecomm.spec import Defense
from safecomm.spec.space import Grid, Strict, at_point, searched
from safecomm.store import digest

Point = dict[str, Any]
"""The searched settings of an arm: `defense.setting` -> number."""
Chain = tuple[tuple[str, dict[str, Any]], ...]
"""Defenses in the order in which they act, each with its settings as constants."""


@dataclass(frozen=True)
class Trial:
    """One point of one arm with one seed, measured on one split."""

    arm: str
    point: Point
    chain: Chain
    seed: int
    split: str = "search"

    @property
    def id(self) -> str:
        """Stays the same from run to run."""
        return digest([self.arm, self.chain, self.seed])

    def as_config(self) -> dict[str, Any]:
        """Returns the trial as plain values."""
        return asdict(self)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Trial":
        """Returns the trial of plain values."""
        chain = tuple((name, dict(settings)) for name, settings in config["chain"])
        return cls(**{**config, "point": dict(config["point"]), "chain": chain})


def dimensions(arm: Sequence[Defense]) -> dict[str, Strict]:
    """Returns the searched settings of an arm: `defense.setting` -> its grid or range."""
    return {
        key: space
        for step in arm
        for setting, value in step.settings
        for key, space in searched(f"{step.name}.{setting}", value).items()
    }


def chain_at(arm: Sequence[Defense], point: Point) -> Chain:
    """Returns the arm's chain with the point's numbers in place of the searched settings."""
    return tuple(
        (
            step.name,
            {
                setting: at_point(f"{step.name}.{setting}", value, point)
                for setting, value in step.settings
                if value is not None
            },
        )
        for step in arm
    )


def grid_points(arm: Sequence[Defense]) -> list[Point] | None:
    """Returns every combination of the arm's grids, or None where a range has to be sampled."""
    spaces = dimensions(arm)
    values = [space.grid for space in spaces.values() if isinstance(space, Grid)]
    if len(values) < len(spaces):
        return None
    return [dict(zip(spaces, combination, strict=True)) for combination in itertools.product(*values)]


def data_ratio(chain: Chain) -> float:
    """Returns how many safety examples per telecom example the chain mixes into the training data."""
    return float(next((settings["ratio"] for name, settings in chain if name == "safe_instruct"), 0.0))


def realignments(chain: Chain) -> Chain:
    """Returns the part of the chain that acts on the adapter."""
    return tuple(step for step in chain if step[0] != "safe_instruct")
