"""Which settings give the same adapter, derived from the alignment profile before any trial runs.

The profile determines which modules a setting selects. Two settings that select the same modules give the same adapter,
so they are one point with two names, and a range of thresholds has at most as many outcomes as there are modules.
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
    """The distinct points of a sweep's arms."""

    def __init__(self, sweep: Sweep, profiles: ProfileCache):
        """Initializes with the sweep and the profiles of its fine-tunes."""
        self._sweep = sweep
        self._profiles = profiles

    def fetch(self) -> None:
        """Fetches the profiles that other nodes have computed."""
        self._profiles.fetch()

    def points(self, arm: str) -> list[Point] | None:
        """Returns an arm's points: the initial ones of the sweep, then every combination of its lists.

        It is None if a range has to be sampled. As long as the values of an `exact` are unknown, there are no
        combinations.
        """
        if arm in REFERENCE_ARMS:
            return [{}]
        spaces = dimensions(self._chain(arm))
        if not all(isinstance(space, Grid | Exact) for space in spaces.values()):
            return None
        return [*self._sweep.search.points_of(arm, spaces), *self._combinations(arm, list(spaces.items()), {})]

    def trainings(self, arm: str) -> list[Chain] | None:
        """Returns the arm's distinct training chains, or None if a range leaves the choice to the search."""
        steps = [step for step in self._chain(arm) if step.trains]
        spaces = dimensions(steps)
        if not all(isinstance(space, Grid) for space in spaces.values()):
            return None
        grids = [values_of(space) for space in spaces.values()]
        initial = [
            {key: point[key] for key in spaces}
            for point in self._sweep.search.points_of(arm, dimensions(self._chain(arm)))
        ]
        points = [*initial, *(dict(zip(spaces, values, strict=True)) for values in itertools.product(*grids))]
        return list({digest(chain): chain for chain in (chain_at(steps, point) for point in points)}.values())

    def resolved(self, arm: str, proposed: Mapping[str, Any]) -> Point:
        """Returns the point that a sampler's proposal represents.

        For an `exact`, the sampler proposes a share, which is converted to the value at that position in the list. A
        number from a range that selects modules is replaced by one representative of all numbers with the same outcome.
        """
        point = dict(proposed)
        for key, space in dimensions(self._chain(arm)).items():
            values = self._breakpoints(arm, key, point)
            if isinstance(space, Exact):
                kept = _spread(values, space.exact)
                point[key] = kept[min(int(point[key] * len(kept)), len(kept) - 1)]
            elif isinstance(space, Uniform | RandInt):
                point[key] = self._snapped(arm, key, point, values)
        return point

    def key(self, arm: str, point: Point) -> str:
        """Returns a key that is equal for points known to give the same adapter."""
        chain = chain_at(self._chain(arm), point)
        name, settings = next(iter(realignments(chain)), ("", {}))
        selection = {way: value for way, value in settings.items() if way in WAYS}
        profiles = self._known(chain)
        if not selection or not profiles:
            return digest(chain)
        selected = [select(modules, cast(Selection, selection), strict=defense_of(name).strict) for modules in profiles]
        others = {setting: value for setting, value in settings.items() if setting not in WAYS}
        step = [name, selected, others if any(selected) else {}]
        return digest([step if part[0] == name else part for part in chain])

    def _chain(self, arm: str) -> list[Step]:
        return self._sweep.arms.get(arm, [])

    def _known(self, chain: Chain) -> list[list[ModuleProfile]]:
        """Returns the profiles of the adapter that the chain's first realignment starts from.

        There is one per seed; the list is empty unless all are known.
        """
        found = [self._profiles.get(training(chain), seed) for seed in range(self._sweep.seeds)]
        return [modules for modules in found if modules] if all(found) else []

    def _combinations(self, arm: str, spaces: list[tuple[str, Strict]], chosen: Point) -> list[Point]:
        """Returns every combination of the lists.

        The training's settings come first, because the values of an `exact` depend on them.
        """
        if not spaces:
            return [chosen]
        (key, space), *rest = spaces
        values = (
            _spread(self._breakpoints(arm, key, chosen), space.exact) if isinstance(space, Exact) else values_of(space)
        )
        return [point for value in values for point in self._combinations(arm, rest, {**chosen, key: value})]

    def _snapped(self, arm: str, key: str, point: Point, values: list[float]) -> Any:
        """Returns the neighbouring breakpoint with the same outcome as a point's value, clipped to its range."""
        low, high = values_of(dimensions(self._chain(arm))[key])
        place = bisect_left(values, point[key])
        own = self.key(arm, point)
        for value in values[max(0, place - 1) : place + 1]:
            inside = type(point[key])(min(max(value, low), high))
            if self.key(arm, {**point, key: inside}) == own:
                return inside
        return point[key]

    def _breakpoints(self, arm: str, key: str, point: Point) -> list[float]:
        """Returns the values of a setting at which the outcome changes; empty if they are unknown."""
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
        number = int if way == "lowest" else float
        return sorted({number(value) for modules in of_kind for value in breakpoints(modules, way)})


def needs_profile(chain: Sequence[Step]) -> bool:
    """Returns whether a chain selects modules of the fine-tuned adapter, for which it needs the profile."""
    steps = [step for step in chain if not step.trains]
    return bool(steps) and isinstance(steps[0].settings, Selecting)


def _spread(values: list[float], most: int) -> list[float]:
    """Returns at most so many values, evenly spaced and with both ends."""
    if len(values) <= most:
        return values
    return [values[round(place * (len(values) - 1) / (most - 1))] for place in range(most)]
