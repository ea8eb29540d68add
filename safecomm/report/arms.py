"""Compares the arms of a sweep that repeats a paper: paired tests at a common target, and the hypervolume of each."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import pandas as pd

from safecomm.errors import UsageError
from safecomm.judging.results import paired
from safecomm.report.pareto import hypervolume
from safecomm.report.points import rows_of
from safecomm.report.release import answers_of
from safecomm.report.run import Headline, Run
from safecomm.spec import REFERENCE_ARMS
from safecomm.statistics.comparisons import RateDifference, holm, paired_difference, sign_flip_p
from safecomm.statistics.metric_table import BY_NAME


@dataclass(frozen=True)
class ArmDifference:
    """The difference between two arms' best points on the report split."""

    metric: str
    first: str
    second: str
    difference: RateDifference
    """The first arm's rate minus the second's; p is Holm-corrected over the pairs of arms."""


def arm_differences(run: Run, rows: Sequence[Headline]) -> list[ArmDifference]:
    """Returns the differences between all pairs of arms, metric by metric.

    Each arm is represented by the point that would be recommended from it alone under the sweep's target. With several
    seeds, a prompt's answers of all seeds are averaged. Empty if the sweep repeats no paper, or the answers are gone.
    """
    own = [row for row in rows if row.arm not in REFERENCE_ARMS]
    if not run.sweep.get("paper"):
        return []
    try:
        answers = {row.arm: _answers(run, row) for row in own}
    except UsageError:
        return []
    found: list[ArmDifference] = []
    for metric in run.metrics:
        pairs = {(a, b): paired(answers[a], answers[b], BY_NAME[metric]) for a, b in combinations(answers, 2)}
        p_values = holm({f"{a}\n{b}": sign_flip_p(both) for (a, b), both in pairs.items() if both})
        found += [
            ArmDifference(metric, a, b, replace(paired_difference(both), p=p_values[f"{a}\n{b}"]))
            for (a, b), both in pairs.items()
            if both
        ]
    return found


def hypervolumes(run: Run) -> dict[str, float]:
    """Returns the hypervolume of each arm's own points; empty if the sweep repeats no paper."""
    if not run.sweep.get("paper"):
        return {}
    objectives, arms = run.sweep["search"]["objectives"], [arm for arm in run.arms if arm not in REFERENCE_ARMS]
    found = {arm: hypervolume(run.points, objectives, [arm]) for arm in arms}
    return {arm: volume for arm, volume in found.items() if volume is not None}


def difference_in_words(found: RateDifference) -> str:
    """Returns a difference in points as `-4.0 [-7.2, -0.9] n=216, p=0.012`."""
    bounds = f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    return f"{bounds} n={found.n}, p={found.p:.2g}"


def _answers(run: Run, row: Headline) -> pd.DataFrame:
    trials = rows_of(run.trials_of(row.arm, row.point, "report"))
    return pd.concat([answers_of(run, trial) for trial in trials], ignore_index=True)
