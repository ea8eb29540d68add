"""What two runs don't have in common: settings of their sweeps, model revisions and package versions."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from safecomm.report.provenance import model_versions
from safecomm.report.run import Run
from safecomm.report.versions import recorded_versions

PLACES = ("name", "storage", "tracking")
"""A sweep's keys that say where its results go."""


@dataclass(frozen=True)
class Difference:
    """Something that the two runs don't have in common."""

    what: str
    """A sweep's key, a model or a package."""
    before: str
    after: str


def differences(before: Run, after: Run) -> Iterator[Difference]:
    """Yields the settings, models and packages that differ; not where the results go."""
    earlier, later = ({key: value for key, value in run.sweep.items() if key not in PLACES} for run in (before, after))
    yield from _differing(earlier, later)
    yield from _versions(before, after)


def _differing(before: Any, after: Any, key: str = "") -> Iterator[Difference]:
    """Yields the keys of two sweeps with different values, by their full path; items of lists go by their position."""
    if isinstance(before, dict) and isinstance(after, dict) and before.keys() & after.keys():
        for name in dict.fromkeys([*before, *after]):
            yield from _differing(before.get(name), after.get(name), f"{key}.{name}" if key else str(name))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for at, (earlier, later) in enumerate(zip(before, after, strict=True)):
            yield from _differing(earlier, later, f"{key}.{at}")
    elif before != after:
        yield Difference(key, in_words(before), in_words(after))


def in_words(value: Any) -> str:
    """Returns a sweep's value in words, without what is not set in it."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {in_words(inner)}" for name, inner in value.items() if inner is not None)
    if isinstance(value, list):
        return ("; " if any(isinstance(inner, dict) for inner in value) else ", ").join(map(in_words, value))
    return "not set" if value is None else str(value)


def _versions(before: Run, after: Run) -> Iterator[Difference]:
    """Yields the models and packages whose versions differ, as far as both runs recorded them."""
    for versions in (model_versions, lambda run: recorded_versions(run.folder)):
        found = [versions(run) for run in (before, after)]
        yield from (
            Difference(name, found[0][name], found[1][name])
            for name in sorted(found[0].keys() & found[1].keys())
            if found[0][name] != found[1][name]
        )
