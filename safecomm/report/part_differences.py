"""On which benchmarks and categories the recommended arm differs from the reference arms."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from safecomm.errors import UsageError
from safecomm.judging.results import paired
from safecomm.report.arms import LEVEL, answers_of_row, changed
from safecomm.report.breakdown import divided, part_of
from safecomm.report.run import Headline, Run
from safecomm.spec import REFERENCE_ARMS
from safecomm.statistics.comparisons import RateDifference, holm, paired_difference, sign_flip_p
from safecomm.statistics.metric_table import BY_NAME


@dataclass(frozen=True)
class PartDifference:
    """The difference between the recommended arm and a reference arm on a part of the report split."""

    metric: str
    reference: str
    benchmark: str
    category: str
    """Empty for all of the benchmark."""
    difference: RateDifference
    """The recommended arm's rate minus the reference's; p is Holm-corrected over the parts of the metric."""
    more: int
    """Prompts, in their clusters, on which the recommended arm's rate is higher."""
    fewer: int
    """Those on which it is lower."""

    @property
    def is_decided(self) -> bool:
        """Whether the arms differ for other prompts of this part, too, with a family-wise error of 5%."""
        return self.difference.p < LEVEL


def part_differences(run: Run, rows: Sequence[Headline]) -> list[PartDifference]:
    """Returns the differences on each benchmark and category; empty without a recommended arm or its answers.

    Args:
        run: the run.
        rows: the headline rows.
    """
    chosen = next((row for row in rows if row.recommended and row.arm not in REFERENCE_ARMS), None)
    if chosen is None or run.warnings:
        return []
    try:
        ours = answers_of_row(run, chosen)
        others = {row.arm: answers_of_row(run, row) for row in rows if row.arm in REFERENCE_ARMS}
    except UsageError:
        return []
    return [
        found
        for metric in run.metrics
        for reference, theirs in others.items()
        for found in _corrected(list(_of_metric(metric, reference, ours, theirs)))
    ]


def _of_metric(metric: str, reference: str, ours: pd.DataFrame, theirs: pd.DataFrame) -> Iterator[PartDifference]:
    kind = BY_NAME[metric].kind
    for own, other in ((ours, theirs), (divided(ours), divided(theirs))):
        own = own[own["kind"] == kind]
        for name, part in own.groupby("benchmark"):
            pairs = paired(part, other[other["benchmark"] == name], BY_NAME[metric])
            if pairs:
                found = replace(paired_difference(pairs), p=sign_flip_p(pairs))
                yield PartDifference(metric, reference, *part_of(str(name)), found, *changed(pairs))


def _corrected(parts: list[PartDifference]) -> list[PartDifference]:
    """Returns the parts, each benchmark before its categories, with p-values for all of them together."""
    p_values = holm({f"{one.benchmark}\n{one.category}": one.difference.p for one in parts})
    ordered = sorted(parts, key=lambda one: (one.benchmark, one.category))
    return [
        replace(one, difference=replace(one.difference, p=p_values[f"{one.benchmark}\n{one.category}"]))
        for one in ordered
    ]
