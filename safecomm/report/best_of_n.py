"""Attack success by the number of tries, for benchmarks with the attack `best_of_n`."""

from dataclasses import dataclass

import pandas as pd

from safecomm.judging.best_of_n import TRY_OF, is_tried, success_by_tries
from safecomm.judging.verdicts import read_all_rows
from safecomm.report.run import Run, headline
from safecomm.statistics.metrics import Rate


@dataclass(frozen=True)
class TryCurve:
    """Attack success on one benchmark of an arm's best point on the report split."""

    arm: str
    benchmark: str
    rates: dict[int, Rate]
    """Tries -> attack success."""


def try_curves(run: Run) -> list[TryCurve]:
    """Returns a curve for every arm and benchmark whose requests were tried several times."""
    if "best_of_n" not in run.attacks:
        return []
    curves = []
    for row in headline(run):
        tries = _tries(run, row.arm, row.point)
        for benchmark, of_benchmark in tries.groupby("benchmark") if len(tries) else ():
            curves.append(TryCurve(row.arm, str(benchmark), success_by_tries(of_benchmark)))
    return curves


def _tries(run: Run, arm: str, point: str) -> pd.DataFrame:
    """Returns the answers to all tries, over all seeds; a request counts once per seed, in one cluster."""
    found = []
    for evaluation in dict.fromkeys(run.trials_of(arm, point, "report")["evaluation"]):
        rows = read_all_rows(run.stage("evaluation", evaluation))
        tried = rows[is_tried(rows)]
        if len(tried):
            found.append(tried.assign(**{TRY_OF: f"{evaluation} " + tried[TRY_OF]}))
    return pd.concat(found) if found else pd.DataFrame()
