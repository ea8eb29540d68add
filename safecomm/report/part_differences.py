"""On which benchmarks and categories the recommended arm differs from the reference arms."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from safecomm.judging.results import paired
from safecomm.report.arms import PairedDifference, changed
from safecomm.report.breakdown import divided, part_of
from safecomm.report.run import Headline, Run
from safecomm.spec import REFERENCE_ARMS
from safecomm.statistics.comparisons import Pairs, corrected_differences
from safecomm.statistics.metric_table import BY_NAME, Metric


@dataclass(frozen=True)
class PartDifference(PairedDifference):
    """The difference between the recommended arm and a reference arm on a part of the report split.

    Its p-value is corrected over the parts of the metric, for each reference arm.
    """

    reference: str
    benchmark: str
    category: str
    """Empty for all of the benchmark."""


def part_differences(run: Run, rows: Sequence[Headline], answers: Mapping[str, pd.DataFrame]) -> list[PartDifference]:
    """Returns the differences, each benchmark before its categories; empty without a recommended arm.

    Args:
        run: the run.
        rows: the headline rows.
        answers: see `arm_answers`.
    """
    chosen = next((row.arm for row in rows if row.recommended and row.arm not in REFERENCE_ARMS), None)
    if chosen is None or chosen not in answers:
        return []
    found = []
    for metric in run.metrics:
        for reference in [arm for arm in answers if arm in REFERENCE_ARMS]:
            pairs = dict(sorted(_parts(answers[chosen], answers[reference], BY_NAME[metric])))
            differences = corrected_differences(pairs).items()
            found += [PartDifference(metric, one, *changed(pairs[part]), reference, *part) for part, one in differences]
    return found


def _parts(ours: pd.DataFrame, theirs: pd.DataFrame, metric: Metric) -> Iterator[tuple[tuple[str, str], list[Pairs]]]:
    """Yields each benchmark and category with both models' verdicts on it."""
    for own, other in ((ours, theirs), (divided(ours), divided(theirs))):
        for name, part in own[own["kind"] == metric.kind].groupby("benchmark"):
            yield part_of(str(name)), paired(part, other[other["benchmark"] == name], metric)
