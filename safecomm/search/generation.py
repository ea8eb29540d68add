"""One later generation of an adapter in a drift study."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from safecomm.spec.drift import POLICIES, Policy, PolicyName, Start


@dataclass(frozen=True)
class Generation:
    """Where the training of a generation starts, on what it trains, and how it is defended."""

    data: tuple[int, ...]
    """The entries of `drift.generations` up to this one, in order."""
    order: int
    """The order of the generations: 0 is as listed."""
    start: Start
    policy: PolicyName
    points: tuple[dict[str, Any], ...] = ()
    """The points among which a policy that searches again chooses."""

    @property
    def number(self) -> int:
        """The number of fine-tunes since generation 0."""
        return len(self.data)

    @property
    def how(self) -> Policy:
        """When its defense is applied, and with which settings."""
        return POLICIES[self.policy]

    @property
    def previous(self) -> "Generation | None":
        """The generation before; None if that is generation 0."""
        return replace(self, data=self.data[:-1]) if self.number > 1 else None

    @property
    def title(self) -> str:
        """A short description."""
        return f"generation {self.number}, {self.start}, {self.policy}, order {self.order}"

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Generation":
        """Returns the generation from plain values, in which tuples may be lists."""
        return cls(**{**values, "data": tuple(values["data"]), "points": tuple(map(dict, values["points"]))})
