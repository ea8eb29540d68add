"""A release policy: rules with limits on what was measured of the adapter that would be released."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from safecomm.defenses.space import LocalPath, Strict
from safecomm.spec.file import read_settings
from safecomm.statistics.metric_table import BY_NAME, MetricName

Tier = Literal["critical", "supporting", "advisory"]
Share = Annotated[float, Field(ge=0, le=1)]
EVERY, MEAN = "*", "mean"


class OtherRun(Strict):
    """The adapter that another run would release, to compare with."""

    run: LocalPath
    """The run's folder; it asked the same prompts and has the same deciding judge."""
    arm: str | None = None
    """One of its arms, instead of its recommended point."""
    seed: int = 0
    """The seed of the fine-tune."""

    def __str__(self) -> str:
        """Returns the run in words."""
        return f"{self.arm or 'the recommended point'} of {self.run}"


class Rule(Strict):
    """One limit: absolute (`max` or `min`), or relative to another arm or run on the same prompts."""

    metric: MetricName | Literal["incoherence"]
    benchmark: str = EVERY
    """A benchmark's name, `*` for each of the metric's benchmarks, or `mean` for their mean."""
    category: str | None = None
    """A category of the benchmark's prompts, or `*` for each; all prompts together if left out."""
    max: Share | None = None
    """Highest rate, for attack success and over-refusal."""
    min: Share | None = None
    """Lowest rate, for accuracy."""
    relative_to: str | OtherRun | None = None
    """An arm (`original`, `undefended` or one of the sweep's), or another run: `{run: FOLDER}`."""
    max_rise: Share | None = None
    """Highest rise above its rate."""
    max_drop: Share | None = None
    """Highest drop below its rate."""
    tier: Tier = "critical"
    """`critical` rules have to be shown to hold; `supporting` rules must not be shown to be broken; `advisory` rules
    are only reported."""

    @model_validator(mode="after")
    def has_one_limit(self) -> Self:
        """Refuses rules without a limit that suits the metric."""
        absolute, relative = ("max", "max_rise") if BY_NAME[self.metric].direction == "min" else ("min", "max_drop")
        wanted = relative if self.relative_to else absolute
        given = [name for name in ("max", "min", "max_rise", "max_drop") if getattr(self, name) is not None]
        if given != [wanted]:
            where = f" relative to {self.relative_to}" if self.relative_to else ""
            raise ValueError(f"a rule for {self.metric}{where} takes {wanted}, and no other limit")
        if self.category and self.benchmark == MEAN:
            raise ValueError("a rule for a category takes a benchmark, not mean")
        return self

    @property
    def limit(self) -> float:
        """The limit's value."""
        return next(one for one in (self.max, self.min, self.max_rise, self.max_drop) if one is not None)


class Policy(Strict):
    """A policy file."""

    rules: Annotated[list[Rule], Field(min_length=1)]
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Of each bound that is compared with a limit."""


def read_policy(path: Path) -> Policy:
    """Reads a policy file.

    Raises:
        SpecError: naming the file, the key and the reason.
    """
    return read_settings(path, Policy, "docs/release.md")
