"""The rules for the search of one arm. What breaks one is a ValueError that says what to change."""

import math
from collections.abc import Sequence

from pydantic import ValidationError

from safecomm.defenses.space import PER_TYPE, Exact, Grid, allows, at_point, values_of
from safecomm.spec.arms import Step, dimensions
from safecomm.spec.search import MAX_POINTS, PUBLISHED, Search


def check_search(name: str, chain: Sequence[Step], search: Search) -> None:
    """Checks that the sampler and the given points fit an arm's search space, and that its lists are not too long."""
    own, spaces = search.of(name), dimensions(chain)
    ranges = [key for key, space in spaces.items() if not isinstance(space, Grid | Exact)]
    if own.algorithm == "grid" and ranges:
        raise ValueError(
            f"algorithm: grid needs lists of values, but {ranges[0]} of {name} is a range; use grid: [...]"
        )
    if own.algorithm == "cmaes" and ranges and len(search.objectives) > 1:
        raise ValueError("algorithm: cmaes supports one objective; set one in search.objectives, or use tpe")
    for point in own.points:
        if wrong := set(spaces) ^ set(PUBLISHED.keys() & set(spaces) if point == "published" else point):
            raise ValueError(
                f"arms.{name}.points: each point must set exactly {', '.join(spaces)}; check {sorted(wrong)[0]}"
            )
    for point in search.points_of(name, spaces):
        if outside := [key for key, value in point.items() if not allows(spaces[key], value)]:
            raise ValueError(
                f"arms.{name}.points: {outside[0]}: {point[outside[0]]:g} is not in its search space; change "
                "the point or the space"
            )
        for step in chain:
            _check_at(name, step, point)
    listed = math.prod(len(values_of(space)) for space in spaces.values() if isinstance(space, Grid))
    if not ranges and listed > MAX_POINTS:
        raise ValueError(
            f"the lists of {name} have {listed:,} combinations, more than {MAX_POINTS:,}; shorten them, or "
            "sample with ranges and search.trials"
        )


def _check_at(arm: str, step: Step, point: dict[str, float]) -> None:
    """Checks that a step's settings are valid at a point.

    Raises:
        ValueError: if one is outside its limits.
    """
    settings = {name: at_point(f"{step.name}.{name}", value, point) for name, value in step.settings}
    try:
        type(step.settings).model_validate(settings)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"] if part not in ("value", PER_TYPE))
        message = str(first["msg"]).removeprefix("Value error, ")
        raise ValueError(f"arms.{arm}.points: {step.name}.{key}: {message}") from error
