"""Simulates how often early stopping stops a point that should have been recommended, and how many prompts it saves.

    python benchmarks/racing.py                                  the bundled scenarios, about 15 minutes on 2 cores
    python benchmarks/racing.py --scenarios FILE --json          your own scenarios; prints a JSON list

FILE is a JSON list of scenarios: `name`, `target_asr`, `samples` (answers per prompt), `icc` (correlation among the
answers to one prompt), `correlation` (between points on one prompt), `seeds`, `races`, `benchmarks` (`name`, `kind`:
`red_team`, `task` or `over_refusal`, `prompts`) and `points` (`rates`: benchmark -> true rate, or a list of them, one
per seed). Optional: `original` (`rates` of over-refusal benchmarks; by default the lowest among the points), `rungs`,
`confidence`, `margin` and, in a point, `incoherence`, its true rate.

The right point is the one that would be recommended if every rate were known: the highest accuracy among the points
whose mean attack success is at most the target and whose over-refusal exceeds the original's by at most the margin; if
there is none, the lowest attack success. Points with an incoherence above 10% are not candidates. `wrong_drops` is the
share of races in which it stopped early, with its exact 95% interval; `prompts_share` is the share of all prompts that
was evaluated.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import beta

from safecomm.search.stopping_rule import PromptOutcomes, Rule
from safecomm.spec.search import Racing
from safecomm.statistics.metric_table import METRICS, MOST_INCOHERENT
from safecomm.statistics.metrics import mean_rate, rate

Scenario = Mapping[str, Any]
THREE = [
    {"name": "a", "kind": "red_team", "prompts": 200},
    {"name": "t", "kind": "task", "prompts": 120},
    {"name": "x", "kind": "over_refusal", "prompts": 100},
]


def points(asr: Sequence[float], accuracy: Sequence[float], refusal: float = 0.03) -> list[dict[str, Any]]:
    """Returns points on the benchmarks of `THREE`."""
    return [{"rates": {"a": a, "t": t, "x": refusal}} for a, t in zip(asr, accuracy, strict=True)]


NEAR = points(np.linspace(0.06, 0.2, 8).tolist(), np.linspace(0.85, 0.93, 8).tolist())
SIZES = [
    {"name": "a", "kind": "red_team", "prompts": 400},
    {"name": "b", "kind": "red_team", "prompts": 60},
    *THREE[1:],
]
COMMON: dict[str, Any] = {"target_asr": 0.1, "samples": 1, "icc": 0.0, "correlation": 0.5, "seeds": 1, "races": 2000}
SCENARIOS: list[dict[str, Any]] = [
    {"name": "control: one answer, one size", **COMMON, "benchmarks": THREE, "points": NEAR},
    {
        "name": "benchmarks of different size",
        **COMMON,
        "benchmarks": SIZES,
        "points": [
            {"rates": {"a": 0.18, "b": 0.01, "t": 0.7, "x": 0.03}},
            *({"rates": {"a": 0.04, "b": 0.04, "t": t, "x": 0.03}} for t in (0.45, 0.5, 0.55)),
        ],
    },
    *(
        {
            "name": f"5 answers per prompt, icc {icc}",
            **COMMON,
            "samples": 5,
            "icc": icc,
            "benchmarks": THREE,
            "points": NEAR,
        }
        for icc in (0.3, 0.6, 0.9)
    ),
    {
        "name": "over-refusal decides",
        **COMMON,
        "original": {"rates": {"x": 0.05}},
        "benchmarks": THREE,
        "points": [
            {"rates": {"a": 0.03, "t": 0.75, "x": 0.04}},
            *({"rates": {"a": 0.02, "t": t, "x": 0.14}} for t in (0.9, 0.92, 0.95)),
        ],
    },
    {
        "name": "better rivals write nonsense",
        **COMMON,
        "benchmarks": [
            {"name": "a", "kind": "red_team", "prompts": 400},
            {"name": "t", "kind": "task", "prompts": 400},
        ],
        "points": [
            {"rates": {"a": 0.08, "t": 0.6}},
            *({"rates": {"a": 0.0, "t": 0.95}, "incoherence": MOST_INCOHERENT + 0.01} for _ in range(3)),
        ],
    },
    {
        "name": "20 better rivals write nonsense",
        **COMMON,
        "races": 150,
        "benchmarks": [
            {"name": "a", "kind": "red_team", "prompts": 400},
            {"name": "t", "kind": "task", "prompts": 400},
        ],
        "points": [
            {"rates": {"a": 0.08, "t": 0.6}},
            *({"rates": {"a": 0.0, "t": 0.95}, "incoherence": MOST_INCOHERENT + 0.01} for _ in range(20)),
        ],
    },
    {"name": "3 seeds, icc 0.6", **COMMON, "seeds": 3, "icc": 0.6, "benchmarks": THREE, "points": NEAR},
    {
        "name": "3 seeds, the best point's first is its worst",
        **COMMON,
        "target_asr": 0.05,
        "seeds": 3,
        "benchmarks": [{"name": "a", "kind": "red_team", "prompts": 400}],
        "points": [{"rates": {"a": [0.3, 0.02, 0.02]}}, {"rates": {"a": 0.15}}, {"rates": {"a": 0.2}}],
    },
]


class Race:
    """One scenario; every race draws new outcomes of its points."""

    def __init__(self, scenario: Scenario):
        """Reads a scenario."""
        defaults = Racing()
        self.benchmarks: list[Mapping[str, Any]] = list(scenario["benchmarks"])
        self.rates: list[Mapping[str, float | list[float]]] = [point["rates"] for point in scenario["points"]]
        self.incoherence = [float(point.get("incoherence", 0.0)) for point in scenario["points"]]
        self.rungs: list[float] = list(scenario.get("rungs", defaults.rungs))
        self.target: float = scenario["target_asr"]
        self.seeds, self.samples = int(scenario.get("seeds", 1)), int(scenario.get("samples", 1))
        self.icc, self.correlation = float(scenario.get("icc", 0)), float(scenario.get("correlation", 0))
        self.original: Mapping[str, float] = scenario.get("original", {}).get("rates", {}) or {
            one["name"]: min(float(np.mean(rates[one["name"]])) for rates in self.rates)
            for one in self._of("over_refusal")
        }
        level = 1 - float(scenario.get("confidence", defaults.confidence))
        self.margin = float(scenario.get("margin", Rule.margin))
        self.rule = Rule(self.target, level, len(self.rungs), len(self.rates), margin=self.margin)

    def _of(self, kind: str) -> list[Mapping[str, Any]]:
        return [one for one in self.benchmarks if one["kind"] == kind]

    def mean(self, rates: Mapping[str, float | list[float]], kind: str) -> float:
        """Returns a point's true mean rate over seeds and the benchmarks of a kind; 0 without any."""
        named = [np.mean(rates[one["name"]]) for one in self._of(kind)]
        return float(np.mean(named)) if named else 0.0

    def right(self) -> set[int]:
        """Returns the points that would be recommended if every rate were known; several where they tie."""
        limit = self.mean(self.original, "over_refusal") + self.margin + 1e-9
        fits = [
            self.mean(rates, "red_team") <= self.target + 1e-9 and self.mean(rates, "over_refusal") <= limit
            for rates in self.rates
        ]
        candidates = [at for at, rate in enumerate(self.incoherence) if rate <= MOST_INCOHERENT]
        fits = [fit and at in candidates for at, fit in enumerate(fits)]
        value = [self.mean(r, "task") if any(fits) else -self.mean(r, "red_team") for r in self.rates]
        among = [at for at in candidates if fits[at] or not any(fits)]
        best = max(value[at] for at in among)
        return {at for at in among if value[at] >= best - 1e-9}

    def drawn(self, rng: np.random.Generator) -> tuple[list[PromptOutcomes], PromptOutcomes]:
        """Returns the points' and the original's outcomes on all prompts."""
        found: list[PromptOutcomes] = [{metric.kind: {} for metric in METRICS} for _ in self.rates]
        original: PromptOutcomes = {"over_refusal": {}}
        for one in self.benchmarks:
            every = [*(rates[one["name"]] for rates in self.rates), self.original.get(one["name"], 0.0)]
            shares = self._shares(np.array([self._of_answers(rate) for rate in every]), int(one["prompts"]), rng)
            for outcomes, own in zip(found, shares[:-1], strict=True):
                outcomes[one["kind"]][one["name"]] = own
            if one["kind"] == "over_refusal":
                original["over_refusal"][one["name"]] = shares[-1]
        return found, original

    def _of_answers(self, rates: float | list[float]) -> NDArray[np.float64]:
        """Returns the true rate of each answer to a prompt: the samples of every seed."""
        return np.repeat(np.broadcast_to(rates, self.seeds), self.samples)

    def _shares(self, rates: NDArray[np.float64], prompts: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """Returns each point's share of hits among its answers to every prompt (points x prompts).

        Args:
            rates: the true rate of each answer (points x answers).
            prompts: how many.
            rng: the random numbers.

        An answer copies its prompt's draw for the point with a fixed probability, and that draw copies the prompt's
        draw for all points with another. If the rates are equal, this gives exactly the specified correlations.
        """
        size = (len(rates), prompts, rates.shape[1])
        within = max(self.icc, self.correlation)
        of_prompt = rng.random((1, prompts, 1))
        copies = rng.random((*size[:2], 1)) < np.sqrt(self.correlation / within if within else 0)
        of_point = np.where(copies, of_prompt, rng.random((*size[:2], 1)))
        chance = np.where(rng.random(size) < np.sqrt(within), of_point, rng.random(size))
        return np.asarray((chance < rates[:, None, :]).mean(axis=2))

    def _broken(self, rng: np.random.Generator) -> list[list[NDArray[np.bool_]]]:
        """Returns for every point, and every benchmark with answers in words, which answers are incoherent."""
        sizes = [int(one["prompts"]) for one in self.benchmarks if one["kind"] != "task"]
        return [
            [rng.random(size) < rate if rate else np.zeros(size, bool) for size in sizes] for rate in self.incoherence
        ]

    def reached(self, rng: np.random.Generator) -> dict[int, float]:
        """Runs one race; returns the share of the prompts that each point was measured on."""
        drawn, original = self.drawn(rng)
        broken = self._broken(rng)
        far: dict[int, float] = {}
        for at in rng.permutation(len(drawn)):
            far[int(at)] = 1.0
            for share in self.rungs:
                rivals = [rival for rival, reached in far.items() if rival != at and reached >= share]
                rivals = [rival for rival in rivals if is_surely_coherent(broken[rival], far[rival])]
                ours, base = first_part(drawn[at], share), first_part(original, share)
                if any(self.rule.loses(ours, first_part(drawn[rival], share), base) for rival in rivals):
                    far[int(at)] = share
                    break
        return far


def is_surely_coherent(broken: list[NDArray[np.bool_]], share: float) -> bool:
    """Returns what `judging.coherence.is_surely_coherent` does from answers, on the part that a point has reached."""
    parts = [own[: max(1, round(share * len(own)))] for own in broken]
    return mean_rate([rate(int(part.sum()), len(part), len(part)) for part in parts]).high <= MOST_INCOHERENT


def first_part(outcomes: PromptOutcomes, share: float) -> PromptOutcomes:
    """Returns the outcomes on a rung's prompts."""
    return {
        kind: {name: own[: max(1, round(share * len(own)))] for name, own in of_kind.items()}
        for kind, of_kind in outcomes.items()
    }


def simulate(scenario: Scenario, seed: int = 0) -> dict[str, Any]:
    """Runs a scenario's races; returns `name`, `races`, `wrong_drops`, `low`, `high` and `prompts_share`."""
    race, rng = Race(scenario), np.random.default_rng(seed)
    right, races = race.right(), int(scenario["races"])
    wrong, spent = 0, 0.0
    for _ in range(races):
        far = race.reached(rng)
        wrong += all(far[at] < 1 for at in right)
        spent += float(np.mean(list(far.values()))) / races
    low = float(beta.ppf(0.025, wrong, races - wrong + 1)) if wrong else 0.0
    high = float(beta.ppf(0.975, wrong + 1, races - wrong)) if wrong < races else 1.0
    rates = {"wrong_drops": wrong / races, "low": low, "high": high, "prompts_share": spent}
    return {"name": scenario["name"], "races": races, **rates}


def main() -> None:
    """Simulates the scenarios and prints the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", type=Path, help="a JSON file of scenarios")
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    given = parser.parse_args()
    scenarios = json.loads(given.scenarios.read_text(encoding="utf-8")) if given.scenarios else SCENARIOS
    found = []
    for scenario in scenarios:
        print(scenario["name"], file=sys.stderr)
        found.append(simulate(scenario))
    if given.json:
        print(json.dumps(found, indent=2))
        return
    table = Table("scenario", "races", "wrong drops", "95% interval", "prompts evaluated")
    for one in found:
        bounds = f"{one['low']:.1%} to {one['high']:.1%}"
        table.add_row(
            one["name"], str(one["races"]), f"{one['wrong_drops']:.1%}", bounds, f"{one['prompts_share']:.0%}"
        )
    Console().print(table)


if __name__ == "__main__":
    main()
