"""What became of the released adapters when they were trained again (section `drift`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from safecomm.errors import UsageError
from safecomm.judging.results import paired
from safecomm.report.plots import COLOURS, GREY, GRID, SYMBOLS, bars, percent_axis, titled_layout
from safecomm.report.points import pooled, rate_in, rows_of
from safecomm.report.release import answers_of
from safecomm.report.run import Headline, Run, headline, in_words, settings
from safecomm.search.arms import DRIFT
from safecomm.statistics.comparisons import RateDifference, paired_difference
from safecomm.statistics.limits import low_among
from safecomm.statistics.metric_table import ASR, BY_NAME
from safecomm.statistics.metrics import Rate
from safecomm.storage.store import Store

DASHES = ("solid", "dash", "dot", "dashdot")
COURSE = ["start", "policy", "order", "generation"]
COST = ["applied", "overlap", "asked", "trained_seconds"]


@dataclass(frozen=True)
class GenerationResult:
    """One generation of an arm's adapter."""

    arm: str
    start: str
    policy: str
    order: int
    """1 is as listed."""
    generation: int
    """0 is the released adapter."""
    applied: str
    """The settings of its defense, in words; empty without a defense."""
    rates: dict[str, Rate]
    """metric -> rate on the report split."""
    changes: dict[str, RateDifference]
    """metric -> difference from generation 0 on the same prompts; empty if the answers are gone."""
    overlap: float | None
    """Of the modules that the defense changed now or in generation 0, the share that it changed in both."""
    asked: int
    """The prompts that deciding took, over all seeds."""
    trained_seconds: float
    """The time of its fine-tunes' steps times their ranks, over all seeds."""
    seeds: int
    """The seeds that were measured."""

    @property
    def course(self) -> tuple[str, str, str, int]:
        """What the generations of one curve share."""
        return self.arm, self.start, self.policy, self.order


def generations(run: Run) -> list[GenerationResult]:
    """Returns all generations, generation 0 first on every course; empty without a section `drift`."""
    if not run.sweep.get("drift") or "generation" not in run.trials:
        return []
    return [one for row in headline(run) for one in _of_arm(run, row)]


def _of_arm(run: Run, row: Headline) -> list[GenerationResult]:
    trials = run.trials[(run.trials["split"] == DRIFT) & (run.trials["status"] == "done")]
    # A column without any value, e.g. the overlap in a study that selects no modules, is not in the table.
    trials = trials.reindex(columns=list(dict.fromkeys([*trials.columns, *COURSE, *COST]))).dropna(subset=COURSE)
    mine = trials[(trials["arm"] == row.arm) & (trials["point"] == row.point)].astype({"order": int, "generation": int})
    released = run.trials_of(row.arm, row.point, "report")
    found: list[GenerationResult] = []
    for key, course in mine.groupby(COURSE[:3], sort=False):
        start, policy, order = cast(tuple[str, str, int], key)
        place = (row.arm, start, policy, int(order) + 1)
        found.append(GenerationResult(*place, 0, in_words(row.settings), row.rates, {}, 1.0, 0, 0.0, row.seeds))
        for number, seeds in course.groupby("generation"):
            found.append(_result(run, place, int(cast(int, number)), seeds, released))
    return found


def _result(
    run: Run, place: tuple[str, str, str, int], number: int, seeds: pd.DataFrame, released: pd.DataFrame
) -> GenerationResult:
    (point,) = rows_of(pooled(seeds.assign(split="report"), Store(run.folder.parent / "store")))
    overlap = None if seeds["overlap"].isna().all() else float(seeds["overlap"].mean())
    return GenerationResult(
        *place,
        number,
        " or ".join(dict.fromkeys(_in_words(run, place[0], applied) for applied in seeds["applied"].fillna(""))),
        {metric: rate_in(point, metric) for metric in run.metrics},
        _changes(run, seeds, released[released["seed"].isin(seeds["seed"])]),
        overlap,
        int(seeds["asked"].sum()),
        float(seeds["trained_seconds"].sum()),
        int(point["seeds"]),
    )


def _in_words(run: Run, arm: str, applied: str) -> str:
    return in_words(settings(run.sweep, arm, applied)) or "as listed" if applied else ""


def _changes(run: Run, seeds: pd.DataFrame, released: pd.DataFrame) -> dict[str, RateDifference]:
    try:
        ours, theirs = (pd.concat([answers_of(run, one) for one in rows_of(both)]) for both in (seeds, released))
    except UsageError:
        return {}
    pairs = {metric: paired(ours, theirs, BY_NAME[metric]) for metric in run.metrics}
    return {metric: paired_difference(found) for metric, found in pairs.items() if found}


def change_in_words(found: RateDifference) -> str:
    """Returns a difference in points as `+4.0 [+0.9, +7.2]`."""
    return f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def by_policy(found: Sequence[GenerationResult]) -> dict[tuple[str, str, str], list[GenerationResult]]:
    """Returns the later generations of each arm, start and policy, over all orders."""
    policies: dict[tuple[str, str, str], list[GenerationResult]] = {}
    for one in found:
        if one.generation:
            policies.setdefault((one.arm, one.start, one.policy), []).append(one)
    return policies


def on_target(rates: Sequence[Rate], target: float) -> str:
    """Returns whether attack success keeps a target in all of several generations, as a predicate.

    It is said to be kept if every 95% interval is at or below the target, and to be missed if a lower bound that is
    corrected for the number of generations is above it. Each is wrong in about 2.5% (`benchmarks/coverage.py`).
    """
    if all(rate.high <= target for rate in rates):
        return "is kept"
    is_missed = any(low_among(rate, len(rates)) > target for rate in rates if rate.low > target)
    return "is missed" if is_missed else "is not surely kept"


def unfinished(run: Run, found: Sequence[GenerationResult]) -> set[tuple[str, str, str]]:
    """Returns the arms, starts and policies of which a generation, or a seed of one, has no result."""
    study = run.sweep["drift"]
    whole = len(study["generations"]) * int(run.sweep.get("seeds", 1)) * len({one.order for one in found})
    measured: dict[tuple[str, str, str], int] = {}
    for one in found:
        place = (one.arm, one.start, one.policy)
        measured[place] = measured.get(place, 0) + (one.seeds if one.generation else 0)
    return {place for place, count in measured.items() if count < whole}


def drift_figure(run: Run, found: Sequence[GenerationResult]) -> go.Figure:
    """Plots every metric over the generations: a colour per policy, a line style per order, a column per arm."""
    columns = list(dict.fromkeys((one.arm, one.start) for one in found))
    policies = list(dict.fromkeys(one.policy for one in found))
    figure = make_subplots(
        rows=len(run.metrics),
        cols=len(columns),
        shared_xaxes=True,
        vertical_spacing=0.06,
        subplot_titles=[f"{arm}, {start}" for arm, start in columns],
    )
    figure.update_layout(titled_layout(240 * len(run.metrics) + 80))
    for course in dict.fromkeys(one.course for one in found):
        arm, start, policy, order = course
        at = policies.index(policy)
        points = [one for one in found if one.course == course]
        for row, metric in enumerate(run.metrics, 1):
            rates = [one.rates[metric] for one in points]
            colour = COLOURS[at % len(COLOURS)]
            figure.add_scatter(
                x=[one.generation for one in points],
                y=[rate.value for rate in rates],
                error_y=bars(rates, colour) | {"thickness": 0.9, "width": 0},
                mode="lines+markers",
                marker={"color": colour, "symbol": SYMBOLS[at % len(SYMBOLS)], "size": 8},
                line={"color": colour, "width": 1.5, "dash": DASHES[(order - 1) % len(DASHES)]},
                name=f"{policy}, order {order}",
                legendgroup=f"{policy}, order {order}",
                showlegend=f"{policy}, order {order}" not in {trace.name for trace in figure.data},
                row=row,
                col=columns.index((arm, start)) + 1,
            )
    if ASR.name in run.metrics:
        target = {"color": GREY, "width": 1, "dash": "dot"}
        figure.add_hline(run.sweep["search"]["target_asr"], line=target, row=run.metrics.index(ASR.name) + 1, col="all")
    figure.update_xaxes(gridcolor=GRID, zeroline=False, dtick=1)
    figure.update_xaxes(title={"text": "generation", "standoff": 6}, row=len(run.metrics))
    figure.update_yaxes(percent_axis("", rangemode="tozero"))
    for row, metric in enumerate(run.metrics, 1):
        figure.update_yaxes(title={"text": run.titles[metric]}, row=row, col=1)
    figure.update_traces(cliponaxis=False)
    return figure
