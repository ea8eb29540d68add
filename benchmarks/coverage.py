"""Simulates the coverage of safecomm's intervals and bounds, and the error rate of its tests.

    python benchmarks/coverage.py            2,000 draws per cell, about ten minutes on 2 cores
    python benchmarks/coverage.py --json     the cells as a JSON list

Every cell draws answers with a known rate and counts how often the 95% interval contains it (or, for tests, how often a
true hypothesis is rejected). `answers` is the number of answers per prompt (samples or seeds), `icc` is their
correlation, and `unscored` is the share of answers without a verdict, at random.
"""

import argparse
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from safecomm.statistics.comparisons import Pairs, paired_difference
from safecomm.statistics.limits import exact_bounds
from safecomm.statistics.metrics import clustered_rate, effective_size, mean_rate, rate

Cell = dict[str, Any]
Draws = NDArray[np.float64]


def answers(rng: np.random.Generator, rate: float, prompts: int, count: int, icc: float) -> Draws:
    """Returns answers as prompts x count; each copies its prompt's draw with probability sqrt(icc)."""
    own = rng.random((prompts, 1)) < rate
    copies = rng.random((prompts, count)) < math.sqrt(icc)
    return np.where(copies, own, rng.random((prompts, count)) < rate).astype(float)


def rate_covers(rng: np.random.Generator, cell: Cell) -> bool:
    """Returns whether the interval of a rate over clusters contains the true rate."""
    drawn = answers(rng, cell["rate"], cell["prompts"], cell["answers"], cell["icc"])
    scored = rng.random(drawn.shape) >= cell["unscored"]
    found = clustered_rate((drawn * scored).sum(1).tolist(), scored.sum(1).tolist(), drawn.size)
    return found.low <= cell["rate"] <= found.high


def mean_covers(rng: np.random.Generator, cell: Cell) -> bool:
    """Returns whether the interval of a mean over two benchmarks of different sizes contains the true mean."""
    other = min(0.95, 3 * cell["rate"])
    parts = [
        rate(int(rng.binomial(n, p)), n, n) for n, p in ((cell["prompts"], cell["rate"]), (cell["prompts"] // 3, other))
    ]
    found = mean_rate(parts)
    return found.low <= (cell["rate"] + other) / 2 <= found.high


def pairs(rng: np.random.Generator, cell: Cell, difference: float) -> Pairs:
    """Returns two models' answers to the same prompts; on half of the prompts both use the same draw."""
    shared = rng.random((cell["prompts"], 1))
    shares = []
    for p in (cell["rate"] + difference, cell["rate"]):
        chance = np.where(rng.random((cell["prompts"], 1)) < 0.7, shared, rng.random((cell["prompts"], 1)))
        own = chance < p
        copies = rng.random((cell["prompts"], cell["answers"])) < math.sqrt(cell["icc"])
        shares.append(np.where(copies, own, rng.random((cell["prompts"], cell["answers"])) < p).mean(1))
    return Pairs(shares[0], shares[1])


def difference_covers(rng: np.random.Generator, cell: Cell) -> bool:
    """Returns whether the interval of a paired difference contains the true difference."""
    found = paired_difference([pairs(rng, cell, 0.05)], test=False)
    return found.low <= 0.05 <= found.high


def falsely_releases(rng: np.random.Generator, cell: Cell) -> bool:
    """Returns whether a certificate is issued for points whose attack success is exactly at the limit.

    The points are tested on new prompts in the order of their safety on the search split, up to the first that fails,
    so a false certificate is issued if and only if the first test succeeds.
    """
    limit = cell["rate"] - 1e-9
    search = [answers(rng, cell["rate"], cell["prompts"], cell["answers"], cell["icc"]) for _ in range(cell["points"])]
    by_search = sorted(range(cell["points"]), key=lambda at: float(search[at].mean()))
    first = answers(rng, cell["rate"], cell["prompts"], cell["answers"], cell["icc"])  # by_search[0] on new prompts
    assert by_search
    n = effective_size(first.sum(1), np.full(len(first), float(cell["answers"]))) if cell["answers"] > 1 else len(first)
    return exact_bounds(float(first.mean()), n, 0.95)[1] <= limit


def cells() -> Iterator[tuple[str, Callable[[np.random.Generator, Cell], bool], Cell]]:
    """Yields the simulations: a name, the function and its cell."""
    clustered = [(1, 0.0), *((count, icc) for count in (3, 5) for icc in (0.0, 0.3, 0.6, 0.9))]
    for prompts in (100, 200, 400):
        for value in (0.03, 0.05, 0.1, 0.3, 0.5):
            for count, icc in clustered:
                for unscored in (0.0, 0.1) if prompts == 200 else (0.0,):
                    cell = {"prompts": prompts, "rate": value, "answers": count, "icc": icc, "unscored": unscored}
                    yield "interval of a rate", rate_covers, cell
            yield "interval of a mean", mean_covers, {"prompts": prompts, "rate": value, "answers": 1, "icc": 0.0}
            for count, icc in ((1, 0.0), (3, 0.3), (3, 0.9)):
                cell = {"prompts": prompts, "rate": value, "answers": count, "icc": icc}
                yield "interval of a paired difference", difference_covers, cell
    for points in (1, 24, 55):
        for count, icc in ((1, 0.0), (5, 0.3), (5, 0.9)):
            cell = {"prompts": 200, "rate": 0.05, "answers": count, "icc": icc, "points": points}
            yield "false certificate", falsely_releases, cell


def simulate(draws: int, seed: int = 0) -> list[Cell]:
    """Returns all cells with `name`, `draws` and `share`, the share of draws in which the function returned true."""
    found = []
    for at, (name, function, cell) in enumerate(cells()):
        rng = np.random.default_rng([seed, at])
        share = sum(function(rng, cell) for _ in range(draws)) / draws
        found.append({"name": name, **cell, "draws": draws, "share": share})
    return found


def main() -> None:
    """Simulates all cells and prints, for each kind, the lowest and highest share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--json", action="store_true", help="print the cells as JSON")
    given = parser.parse_args()
    found = simulate(given.draws)
    if given.json:
        print(json.dumps(found, indent=2))
        return
    table = Table("what", "answers per prompt", "icc", "cells", "lowest share", "highest share")
    kinds = dict.fromkeys((one["name"], one["answers"], one["icc"]) for one in found)
    for kind in kinds:
        shares = [one["share"] for one in found if (one["name"], one["answers"], one["icc"]) == kind]
        table.add_row(kind[0], str(kind[1]), f"{kind[2]}", str(len(shares)), f"{min(shares):.1%}", f"{max(shares):.1%}")
    Console().print(table)


if __name__ == "__main__":
    main()
