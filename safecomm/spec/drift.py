"""The `drift` section: what becomes of an arm's safety when its model is trained again and again."""

import math
import random
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from safecomm.defenses.space import Strict, different
from safecomm.spec.datasets import DatasetRef, TrainData

PolicyName = Literal["never", "reuse", "search", "reuse_on_failure", "search_on_failure"]
Start = Literal["continue", "merge", "pool"]


@dataclass(frozen=True)
class Policy:
    """When an arm's defense is applied to a later generation, and with which settings."""

    when: Literal["never", "always", "on_failure"]
    """`on_failure`: if the newly trained adapter does not keep the limits of `search` on the search split."""
    searches: bool = False
    """Whether the settings are chosen again, on the search split, among the points that the arm's search tried."""


POLICIES: dict[PolicyName, Policy] = {
    "never": Policy("never"),
    "reuse": Policy("always"),
    "search": Policy("always", searches=True),
    "reuse_on_failure": Policy("on_failure"),
    "search_on_failure": Policy("on_failure", searches=True),
}


def _listed(value: object) -> object:
    return value if isinstance(value, list) else [value]


Given = DatasetRef | str
Generation = Annotated[
    list[TrainData], BeforeValidator(_listed, json_schema_input_type=Given | list[Given]), Field(min_length=1)
]


class Drift(Strict):
    """Trains the best point of every arm again on further task data, generation after generation.

    Generation 0 is the sweep's own fine-tune with the arm's defense. Each later generation trains with the settings of
    `finetune` on further data, applies the arm's defense according to a policy, and is measured on the report split.
    """

    generations: Annotated[list[Generation], Field(min_length=1, max_length=20)]
    """The task data of each later generation: a dataset or a list of datasets, e.g. a file per 3GPP release, or slices
    of one set."""
    policies: Annotated[list[PolicyName], Field(min_length=1), different("policy")] = [
        "never",
        "reuse",
        "search",
        "reuse_on_failure",
    ]
    """When the arm's defense is applied again. `never`: not after generation 0. `reuse`: to every generation, with the
    settings of generation 0. `search`: to every generation, with settings chosen again on the search split, among the
    points that the arm's search tried. `reuse_on_failure`, `search_on_failure`: only to generations that miss the
    limits of `search` without it, on the search split."""
    starts: Annotated[list[Start], Field(min_length=1), different("start")] = ["continue"]
    """What a generation trains. `continue`: the adapter of the generation before, in the rank that its defense left.
    `merge`: a new adapter on top of it, as if it had been merged into the model; the rank grows with each generation.
    `pool`: a new adapter on the aligned model, with the data of all generations so far."""
    orders: Annotated[int, Field(ge=1)] | None = None
    """The number of orders of the generations: as listed, reversed, then shuffled. By default two, if there are two."""

    @model_validator(mode="after")
    def has_orders(self) -> Self:
        """Rejects more orders than there are."""
        if (self.orders or 1) > (most := math.factorial(len(self.generations))):
            raise ValueError(f"orders is {self.orders}, but {len(self.generations)} generations have only {most}")
        return self

    @property
    def datasets(self) -> dict[str, DatasetRef]:
        """The training sets by their keys in the sweep."""
        return {
            f"drift.generations.{at}.{place}": ref
            for at, refs in enumerate(self.generations)
            for place, ref in enumerate(refs)
        }

    def permutations(self) -> list[tuple[int, ...]]:
        """Returns the orders, each as positions in `generations`."""
        listed = tuple(range(len(self.generations)))
        found, shuffled = dict.fromkeys([listed, listed[::-1]]), random.Random("orders of generations")
        while len(found) < (self.orders or 1):
            found[tuple(shuffled.sample(listed, len(listed)))] = None
        return list(found)[: self.orders]
