"""Simulates how often the intervals, bounds and tests that safecomm prints hold.

    python benchmarks/coverage.py            2,000 draws per cell, about an hour on one core
    python benchmarks/coverage.py --json     the cells as a JSON list

Every cell draws answers with known rates and counts how often something happens: an interval contains the true value
(95% is right), a true hypothesis is rejected or a point at its limit is released (at most 5%), a difference of the size
that `plan` states is found (about 80%). `simulations.py` has the functions, and what the fields of a cell mean.
"""

import argparse
import json
from collections.abc import Iterator

import numpy as np
from rich.console import Console
from rich.table import Table
from simulations import (
    CREEPING,
    RISING,
    TARGET,
    TRIES,
    Cell,
    Simulation,
    breach_is_bracketed,
    correction_covers,
    correction_falls_short,
    difference_covers,
    equal_arms_differ,
    equal_judges_disagree,
    equal_models_differ,
    equal_parts_differ,
    further_runs_are_covered,
    inferior_passes,
    labels_cover,
    labels_fall_short,
    mean_covers,
    policy_keeps,
    policy_misses,
    rate_covers,
    stated_difference_is_found,
    tries_cover,
    unchanged_arms_change,
    unsafe_is_certified,
    worst_case_is_covered,
)

Kind = tuple[str, str, Simulation, Cell]
"""A name, what the share should be, the function, and its cell."""
ONE, FEW = [(1, 0.0)], [(1, 0.0), (3, 0.3), (5, 0.9)]
"""Answers per prompt with their icc."""


def cells() -> Iterator[Kind]:
    """Yields what is simulated; a cell's place decides its random numbers, so new ones come last."""
    yield from cells_of_rates()
    yield from cells_of_decisions()
    yield from cells_of_labels()
    yield from cells_of_attackers()
    yield from cells_of_comparisons()
    yield from cells_of_drift()
    yield from cells_of_parts()
    yield from cells_of_worst_cases()


def cells_of_rates() -> Iterator[Kind]:
    """Yields the cells of rates and their differences."""
    clustered = [*ONE, *((count, icc) for count in (3, 5) for icc in (0.0, 0.3, 0.6, 0.9))]
    for prompts in (100, 200, 400):
        for value in (0.03, 0.05, 0.1, 0.3, 0.5):
            at = {"prompts": prompts, "rate": value}
            for count, icc in clustered:
                for unscored in (0.0, 0.1) if prompts == 200 else (0.0,):
                    yield "rate", "95%", rate_covers, {**at, "answers": count, "icc": icc, "unscored": unscored}
            for count, icc in FEW:
                cell = {**at, "answers": count, "icc": icc}
                yield "mean over benchmarks", "95%", mean_covers, cell
                yield "paired difference", "95%", difference_covers, cell
                yield "p < 0.05 for equal models", "<= 5%", equal_models_differ, cell
                yield "margin kept by an inferior model", "<= 5%", inferior_passes, cell
            for count, runs in ((3, 0.0), (3, 0.4), (5, 0.4)):
                cell = {**at, "answers": count, "icc": 0.6, "runs": runs}
                yield "further seeds", "95%", further_runs_are_covered, cell
            alone = {**at, "answers": 1, "icc": 0.0}
            yield "rate corrected for a judge", "95%", correction_covers, alone
            yield "corrected bound too low", "<= 5%", correction_falls_short, alone
        alone = {"prompts": prompts, "answers": 1, "icc": 0}
        yield "detectable difference found", "80%", stated_difference_is_found, alone


def cells_of_decisions() -> Iterator[Kind]:
    """Yields the cells of the certificate."""
    for points in (1, 24, 55):
        for count, icc in FEW:
            for shared in (0.0, 0.5):
                cell = {"prompts": 200, "rate": 0.05, "answers": count, "icc": icc, "points": points, "shared": shared}
                yield "unsafe point certified", "<= 5%", unsafe_is_certified, {**cell, "unscored": 0.0}


def cells_of_labels() -> Iterator[Kind]:
    """Yields the cells of rates from labels."""
    for value in (0.03, 0.05, 0.1, 0.3):
        for count, icc in ((1, 0.0), (3, 0.6)):
            cell = {"prompts": 200, "rate": value, "answers": count, "icc": icc, "labels": 100}
            yield "rate from labels", ">= 95%", labels_cover, cell
            yield "bound from labels too low", "<= 5%", labels_fall_short, cell


def cells_of_attackers() -> Iterator[Kind]:
    """Yields the cells of attacks with several tries and of further training."""
    for prompts in (100, 200, 400):
        for value in (0.03, 0.1, 0.3):
            for tries in (1, 4, TRIES):
                cell = {"prompts": prompts, "rate": value, "answers": tries, "icc": 0.3}
                yield "success after k tries", ">= 95%", tries_cover, cell
        for rates in (RISING, CREEPING, [TARGET - 0.02] * 5, [TARGET] * 5):
            cell = {"prompts": prompts, "rates": rates, "answers": 1, "icc": 0.0}
            yield "steps to breach in the bracket", ">= 90%", breach_is_bracketed, cell


def cells_of_comparisons() -> Iterator[Kind]:
    """Yields the cells of comparisons between arms, runs and judges."""
    for arms in (3, 4, 6):
        for value in (0.05, 0.3):
            cell = {"prompts": 200, "rate": value, "arms": arms, "answers": 1, "icc": 0.0}
            yield "difference of equal arms decided", "<= 5%", equal_arms_differ, cell
    for count, icc in FEW:
        for value in (0.05, 0.3):
            cell = {"prompts": 200, "rate": value, "answers": count, "icc": icc}
            for arms in (1, 3, 6):
                yield "change of unchanged arms decided", "<= 5%", unchanged_arms_change, {**cell, "arms": arms}
            for shared in (0.0, 0.9):
                yield "equal judges said to disagree", "<= 5%", equal_judges_disagree, {**cell, "shared": shared}


def cells_of_drift() -> Iterator[Kind]:
    """Yields the cells of what the guide says of a drift study."""
    for generations in (3, 6, 20):
        for prompts in (100, 200, 400):
            for shared in (0.0, 0.5):
                cell = {"prompts": prompts, "answers": 1, "icc": 0.0, "generations": generations, "shared": shared}
                yield "kept target called missed", "<= 5%", policy_misses, cell
                yield "missed target called kept", "<= 5%", policy_keeps, cell


def cells_of_parts() -> Iterator[Kind]:
    """Yields the cells of differences by benchmark and category."""
    for parts in (4, 10, 40):
        for count, icc in FEW:
            for value in (0.05, 0.3):
                cell = {"prompts": 400, "rate": value, "answers": count, "icc": icc, "parts": parts}
                yield "difference of equal parts decided", "<= 5%", equal_parts_differ, cell


def cells_of_worst_cases() -> Iterator[Kind]:
    """Yields the cells of the worst case of further training."""
    for trainings in (2, 12):
        for prompts in (100, 200, 400):
            for value in (0.05, 0.3, 0.9):
                for rise in (0.0, 0.5):
                    cell = {"prompts": prompts, "rate": value, "answers": 1, "icc": 0.0}
                    cell |= {"trainings": trainings, "rise": rise}
                    yield "worst case of further training", ">= 95%", worst_case_is_covered, cell


def simulate(draws: int, only: str = "", seed: int = 0) -> list[Cell]:
    """Returns the cells whose name contains `only`.

    Each has `name`, `should_be`, `draws` and `share`: of the draws in which it happened.
    """
    found = []
    for at, (name, should_be, function, cell) in enumerate(cells()):
        if only not in name:
            continue
        rng = np.random.default_rng([seed, at])
        share = sum(function(rng, cell) for _ in range(draws)) / draws
        found.append({"name": name, "should_be": should_be, **cell, "draws": draws, "share": share})
    return found


def main() -> None:
    """Simulates all cells and prints, for each kind, the lowest and highest share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--only", default="", help="only the cells whose name contains this")
    parser.add_argument("--json", action="store_true", help="print the cells as JSON")
    given = parser.parse_args()
    found = simulate(given.draws, given.only)
    if given.json:
        print(json.dumps(found, indent=2))
        return
    table = Table("what", "should be", "answers per prompt", "icc", "cells", "lowest share", "highest share")
    kinds = dict.fromkeys((one["name"], one["should_be"], one["answers"], one["icc"]) for one in found)
    for name, should_be, count, icc in kinds:
        shares = [o["share"] for o in found if (o["name"], o["answers"], o["icc"]) == (name, count, icc)]
        ends = f"{min(shares):.1%}", f"{max(shares):.1%}"
        table.add_row(name, should_be, str(count), str(icc), str(len(shares)), *ends)
    Console().print(table)


if __name__ == "__main__":
    main()
