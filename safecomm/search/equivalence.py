"""What settings come to, as far as it is known before they are tried.

The alignment profile says which modules a setting selects. Two settings that select the same modules give the same
adapter: they are one point with two names, and a range of thresholds has no more outcomes than there are modules.
"""

import itertools
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, cast

from safecomm.defenses.defense import Selecting
from safecomm.defenses.registry import defense_of
from safecomm.defenses.space import Exact, Grid, RandInt, Strict, Uniform, values_of
from safecomm.errors import DefenseError
from safecomm.search.arms import Chain, Point, chain_at, realignments, training
from safecomm.search.profile_cache import ProfileCache
from safecomm.spec import REFERENCE_ARMS, Step, Sweep
from safecomm.spec.arms import dimensions
from safecomm.statistics.selection import WAYS, ModuleProfile, Selection, breakpoints, module_type, select
from safecomm.storage.store import digest


class EquivalentPoints:
    """The points of a sweep's arms, told apart by what they come to."""

    def __init__(self, sweep: Sweep, profiles: ProfileCache):
        """Takes the sweep and what is known of its fine-tunes."""
        self._sweep = sweep
        self._profiles = profiles

    def fetch(self) -> None:
        """Takes in what other nodes learnt of the fine-tunes."""
        self._profiles.fetch()

    def points(self, arm: str) -> list[Point] | None:
        """Returns an arm's points: those to begin with, then every combination of its lists.

        None where a range has to be sampled. Where the values of `exact` are not known there are no combinations.
        """
        if arm in REFERENCE_ARMS:
            return [{}]
        spaces = dimensions(self._chain(arm))
        if not all(isinstance(space, Grid | Exact) for space in spaces.values()):
            return None
        return [*self._sweep.search.points_of(arm, spaces), *self._combinations(arm, list(spaces.items()), {})]

    def trainings(self, arm: str) -> list[Chain] | None:
        """Returns the chains' parts that act on the fine-tune, or None where a range leaves them to the search."""
        steps = [step for step in self._chain(arm) if step.trains]
        spaces = dimensions(steps)
        if not all(isinstance(space, Grid) for space in spaces.values()):
            return None
        grids = [values_of(space) for space in spaces.values()]
        begun = [
            {key: point[key] for key in spaces}
            for point in self._sweep.search.points_of(arm, dimensions(self._chain(arm)))
        ]
        points = [*begun, *(dict(zip(spaces, values, strict=True)) for values in itertools.product(*grids))]
        return list({digest(chain): chain for chain in (chain_at(steps, point) for point in points)}.values())

    def resolved(self, arm: str, proposed: Mapping[str, Any]) -> Point:
        """Returns the point that a sampler's proposal stands for.

        A share stands for that place among the values of an `exact`. A number in a range that modules are selected by
        is moved to where all that come to the same meet.
        """
        point = dict(proposed)
        for key, space in dimensions(self._chain(arm)).items():
            values = self._breakpoints(arm, key, point)
            if isinstance(space, Exact):
                few = _spread(values, space.exact)
                point[key] = few[min(int(point[key] * len(few)), len(few) - 1)]
            elif isinstance(space, Uniform | RandInt):
                point[key] = self._snapped(arm, key, point, values)
        return point

    def key(self, arm: str, point: Point) -> str:
        """Returns what points have in common that are known to come to the same."""
        chain = chain_at(self._chain(arm), point)
        name, settings = next(iter(realignments(chain)), ("", {}))
        by = {way: value for way, value in settings.items() if way in WAYS}
        known = self._known(chain)
        if not by or not known:
            return digest(chain)
        selected = [select(modules, cast(Selection, by), strict=defense_of(name).strict) for modules in known]
        others = {setting: value for setting, value in settings.items() if setting not in WAYS}
        step = [name, selected, others if any(selected) else {}]
        return digest([step if part[0] == name else part for part in chain])

    def _chain(self, arm: str) -> list[Step]:
        return self._sweep.arms.get(arm, [])

    def _known(self, chain: Chain) -> list[list[ModuleProfile]]:
        """Returns the profiles of what the chain's first realignment gets, one a seed; none unless all are known."""
        found = [self._profiles.get(training(chain), seed) for seed in range(self._sweep.seeds)]
        return [modules for modules in found if modules] if all(found) else []

    def _combinations(self, arm: str, spaces: list[tuple[str, Strict]], chosen: Point) -> list[Point]:
        """Returns every combination of lists; the values of an `exact` depend on the training, which comes first."""
        if not spaces:
            return [chosen]
        (key, space), *rest = spaces
        values = (
            _spread(self._breakpoints(arm, key, chosen), space.exact) if isinstance(space, Exact) else values_of(space)
        )
        return [point for value in values for point in self._combinations(arm, rest, {**chosen, key: value})]

    def _snapped(self, arm: str, key: str, point: Point, values: list[float]) -> Any:
        """Returns the value beside a point's that comes to the same, within the limits of its range."""
        low, high = values_of(dimensions(self._chain(arm))[key])
        place = bisect_left(values, point[key])
        own = self.key(arm, point)
        for value in values[max(0, place - 1) : place + 1]:
            inside = type(point[key])(min(max(value, low), high))
            if self.key(arm, {**point, key: inside}) == own:
                return inside
        return point[key]

    def _breakpoints(self, arm: str, key: str, point: Point) -> list[float]:
        """Returns the values of a setting at which the outcome changes; none where they are not known."""
        name, way, *kind = key.split(".")
        steps = [step for step in self._chain(arm) if not step.trains]
        if way not in WAYS or not steps or steps[0].name != name:
            return []
        known = self._known(chain_at([step for step in self._chain(arm) if step.trains], point))
        of_kind = [[one for one in modules if not kind or module_type(one.name) == kind[0]] for modules in known]
        if not all(of_kind):
            raise DefenseError(f"arms.{arm}: {key}: the adapter has no {kind[0]}; see finetune.lora.targets")
        if way in ("threshold", "above_null"):
            return breakpoints([one for modules in of_kind for one in modules], way) if of_kind else []
        whole = int if way == "lowest" else float
        return sorted({whole(value) for modules in of_kind for value in breakpoints(modules, way)})


def needs_profile(chain: Sequence[Step]) -> bool:
    """Tells whether a chain selects modules of the adapter that comes out of the fine-tune."""
    steps = [step for step in chain if not step.trains]
    return bool(steps) and isinstance(steps[0].settings, Selecting)


def _spread(values: list[float], most: int) -> list[float]:
    """Returns at most so many values, evenly spaced and with both ends."""
    if len(values) <= most:
        return values
    return [values[round(place * (len(values) - 1) / (most - 1))] for place in range(most)]
