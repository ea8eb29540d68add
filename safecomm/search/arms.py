"""Trials: one point of an arm as a chain of defenses."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from safecomm.defenses.registry import defense_of
from safecomm.defenses.space import at_point
from safecomm.search.generation import Generation
from safecomm.spec import Step, Sweep
from safecomm.spec.tamper import Tampering
from safecomm.storage.own_code import is_dotted
from safecomm.storage.store import digest

Point = dict[str, Any]
"""The searched settings of an arm: `defense.setting` -> number."""
RELEASE = "release"
"""The split that is kept for the gate."""
TAMPER = "tamper"
"""The harmful prompts of the report split, for adapters that were trained further."""
DRIFT = "drift"
"""The prompts of the report split, for later generations of an adapter."""
Chain = tuple[tuple[str, dict[str, Any]], ...]
"""Defenses in the order in which they are applied, each with constant settings; a user's own by its dotted name."""


@dataclass(frozen=True)
class Trial:
    """One point of one arm with one seed, measured on one split."""

    arm: str
    point: Point
    chain: Chain
    seed: int
    split: str = "search"
    tamper: Tampering | None = None
    """The section of `tamper` on whose examples the adapter is trained further; None if it is not."""
    steps: int = 0
    """The steps of that further training."""
    learning_rate: float | None = None
    """Its learning rate, if `tamper` lists several; None for the sweep's."""
    generation: Generation | None = None
    """The later generation of the adapter; None for generation 0."""

    @property
    def id(self) -> str:
        """The same in every run."""
        further: list[Any] = [self.tamper, self.steps] if self.tamper else []
        further += [self.learning_rate] if self.learning_rate else []
        further += [asdict(self.generation)] if self.generation else []
        return digest([self.arm, self.chain, self.seed, *further])

    @property
    def title(self) -> str:
        """A short description: arm, settings and seed."""
        further = [f"trained further on tamper.{self.tamper}"] if self.tamper else []
        rate = [f"with a learning rate of {self.learning_rate:g}"] if self.learning_rate else []
        steps = [f"for {self.steps} steps"] if self.steps else []
        later = [self.generation.title] if self.generation else []
        return " ".join(
            [self.arm, *self.settings, *([f"seed {self.seed}"] if self.seed else []), *further, *rate, *steps, *later]
        )

    @property
    def settings(self) -> list[str]:
        """The point's settings, each as `name=value`; a training defense may have texts among them."""
        numbers = {key: f"{value:.4g}" for key, value in self.point.items() if isinstance(value, float)}
        return [f"{key.rpartition('.')[2]}={numbers.get(key, value)}" for key, value in self.point.items()]

    def as_config(self) -> dict[str, Any]:
        """Returns the trial as plain values."""
        return asdict(self)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "Trial":
        """Returns the trial that `as_config` turned into plain values."""
        chain = tuple((name, dict(settings)) for name, settings in config["chain"])
        later = config.get("generation")
        generation = Generation.of(later) if later else None
        return cls(**{**config, "point": dict(config["point"]), "chain": chain, "generation": generation})


def chain_at(arm: Sequence[Step], point: Point) -> Chain:
    """Returns the arm's chain with the searched settings replaced by the point's values."""
    return tuple(
        (
            step.reference,
            {
                setting: at_point(f"{step.name}.{setting}", value, point)
                for setting, value in step.settings
                if value is not None
            },
        )
        for step in arm
    )


def seeded(sweep: Sweep, arm: str, point: Point, split: str = "search") -> list[Trial]:
    """Returns a point's trials, one per seed."""
    chain = chain_at(sweep.arms.get(arm, []), point)
    return [Trial(arm, point, chain, seed, split) for seed in range(sweep.seeds)]


def training_steps(chain: Chain) -> Chain:
    """Returns the part of the chain that changes the fine-tune."""
    return tuple(step for step in chain if defense_of(step[0]).trains)


def training(chain: Chain) -> dict[str, Any]:
    """Returns the settings by which the chain changes the fine-tune, e.g. `{"ratio": 0.03}`; empty for a plain one."""
    return {
        f"{name}.{setting}" if is_dotted(name) else setting: value
        for name, settings in training_steps(chain)
        for setting, value in settings.items()
    }


def realignments(chain: Chain) -> Chain:
    """Returns the part of the chain that changes the adapter."""
    return tuple(step for step in chain if not defense_of(step[0]).trains)
