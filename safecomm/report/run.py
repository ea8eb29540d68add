"""A finished run for reports: its trials, its points and the rows of the headline table."""

import json
import math
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from safecomm.errors import StorageError, UsageError
from safecomm.judging.verdicts import read_rows
from safecomm.report.human_labels import with_labels
from safecomm.report.judges import HumanLabels, read_labels
from safecomm.report.points import Point, is_incoherent, metrics_of, pooled, rate_in, rows_of
from safecomm.report.run_files import read_saved_sweep, read_trials
from safecomm.report.summary import summarise
from safecomm.search.arms import RELEASE
from safecomm.spec import ORIGINAL, UNDEFENDED, Step
from safecomm.spec.attacks import KINDS
from safecomm.spec.published import Published, find_published
from safecomm.statistics.comparisons import JudgeAccuracy, corrected_rates
from safecomm.statistics.domain import TELECOM, Domain, domain_of
from safecomm.statistics.labelled import labelled_rate
from safecomm.statistics.metric_table import ACCURACY, ASR, METRICS, headings
from safecomm.statistics.metrics import Rate
from safecomm.storage.names import SWEEP
from safecomm.storage.store import Store, local_copy

FLATTERED = (
    "The settings were chosen on the same prompts that these rates are measured on (search.split: report), so the "
    "rates are optimistic."
)

SIMULATED = (
    "The engines and fine-tunes were simulated (evaluate.engine: simulated): all rates are made up, and nothing here "
    "can be released."
)


@dataclass(frozen=True)
class Run:
    """The contents of a run folder."""

    folder: Path
    sweep: dict[str, Any]
    """`sweep.json`, with task benchmarks under `evaluate.task` even if it was written by an older version."""
    trials: pd.DataFrame
    """`trials.parquet`."""
    points: pd.DataFrame
    """The done trials, pooled over seeds."""
    outcome: dict[str, Any]
    """The Pareto front, the recommended point and every arm's best point."""
    labels: HumanLabels
    """The sweep's human labels, empty without any."""

    def stage(self, stage: str, key: str) -> Path:
        """Returns the folder of a stage's output on this node; its files may be missing."""
        folder = self.folder.parent / "store" / stage / key
        with suppress(StorageError):
            return local_copy(folder)
        return folder

    @property
    def is_flattered(self) -> bool:
        """Whether the settings were chosen on the prompts of the reported rates."""
        return bool(self.sweep["search"].get("split") == "report")

    @property
    def is_simulated(self) -> bool:
        """Whether the rates are made up."""
        return bool(self.sweep["evaluate"].get("engine") == "simulated")

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before any rate."""
        return [*([SIMULATED] if self.is_simulated else []), *([FLATTERED] if self.is_flattered else [])]

    @property
    def without_recommendation(self) -> str:
        """Why no recommended point has rates on the report split."""
        if chosen := self.outcome["recommended"]:
            return f"Chosen so far on the search split: {chosen['arm']}. It is not measured on the report split yet."
        return f"No trial has both {ASR.words(self.domain)} and {ACCURACY.words(self.domain)}."

    @property
    def gate_split(self) -> str:
        """The split that the gate decides on: the one that is kept for it, or the report split."""
        return RELEASE if self.sweep["search"].get("release_split") else "report"

    @property
    def arms(self) -> list[str]:
        """The arms in the order of all tables and plots: the reference arms, then the sweep's."""
        listed = [ORIGINAL, UNDEFENDED, *self.sweep["arms"]]
        return [arm for arm in dict.fromkeys(listed) if arm in set(self.trials["arm"])]

    @property
    def judge_names(self) -> list[str]:
        """The judges of red-team responses; the first decides."""
        return [judge["name"] if isinstance(judge, dict) else judge for judge in self.sweep["evaluate"]["judges"]]

    @property
    def attacks(self) -> set[str]:
        """The kinds of attack that red-team benchmarks have."""
        refs = [ref for ref in self.sweep["evaluate"].get("red_team", []) if isinstance(ref, dict)]
        return {kind for ref in refs for kind in KINDS if kind in (ref.get("attack") or {})}

    @property
    def judges(self) -> dict[str, JudgeAccuracy]:
        """The judges' agreement with human labels, the deciding judge first; empty if it was not measured."""
        return self.labels.judges

    @property
    def correction(self) -> str:
        """What corrected attack success rests on, in words; empty without labels."""
        if self.labels.drawn:
            return "from human labels of these answers"
        return f"corrected for the errors of {next(iter(self.judges))}" if self.judges else ""

    @property
    def published(self) -> Published | None:
        """The published results for the sweep's model and data, or None if it does not repeat a paper."""
        paper, data = self.sweep.get("paper"), self.sweep["finetune"]["data"]
        if not paper:
            return None
        try:
            return find_published(paper, self.sweep["model"]["aligned"], [ref["name"] for ref in data])
        except ValueError as error:
            raise UsageError(f"{self.folder / SWEEP}: paper: {error}; run the sweep again to rewrite it") from error

    @cached_property
    def metrics(self) -> list[str]:
        """The metrics that the sweep measured."""
        return [one.name for one in METRICS if one.name in self.points and bool(self.points[one.name].notna().any())]

    @property
    def domain(self) -> Domain:
        """The sweep's domain; older runs don't record it and were all about telecom."""
        return domain_of(self.sweep.get("domain") or TELECOM.name)

    @property
    def titles(self) -> dict[str, str]:
        """Metric -> title."""
        return headings(self.domain)

    def trials_of(self, arm: str, point: str, split: str) -> pd.DataFrame:
        """Returns the done trials of a point, one per seed."""
        trials = self.trials
        matching = (trials["arm"] == arm) & (trials["point"] == point) & (trials["split"] == split)
        return trials[matching & (trials["status"] == "done")].sort_values("seed")

    def row(self, arm: str, point: str, split: str) -> Point | None:
        """Returns a point's pooled row, or None if none of its trials is done."""
        points = self.points
        matching = points[(points["arm"] == arm) & (points["point"] == point) & (points["split"] == split)]
        return rows_of(matching)[0] if len(matching) else None


@dataclass(frozen=True)
class Headline:
    """One row of the headline table: an arm's best point on the report split."""

    arm: str
    point: str
    settings: dict[str, Any]
    rates: dict[str, Rate]
    """By metric."""
    spread: dict[str, tuple[float, float]]
    """By metric: the lowest and the highest seed."""
    runs: dict[str, tuple[float, float]]
    """By metric: the 95% interval for further training runs (see `pooled`); empty for one seed."""
    seeds: int
    recommended: bool
    pooled: Point
    """The pooled row with the rates."""
    corrected: dict[str, Rate]
    """By `asr/BENCHMARK`: attack success from human labels of these answers or, without any, corrected for the deciding
    judge's errors, if these are known."""
    meets_target: bool
    """Whether attack success is at or below `search.target_asr` with its whole interval, and answers are coherent."""


def read_run(folder: Path) -> Run:
    """Reads a run folder.

    Raises:
        UsageError: if `sweep.json` or `trials.parquet` is missing, or one of them or `judges.json` is broken.
    """
    sweep = read_saved_sweep(folder)
    return run_of(folder, sweep, read_trials(folder))


def run_of(folder: Path, sweep: dict[str, Any], trials: pd.DataFrame) -> Run:
    """Returns the contents of a run folder with the given sweep (see `Run.sweep`) and trials.

    Raises:
        UsageError: if `judges.json` is broken.
    """
    points = pooled(trials, Store(folder.parent / "store"))
    labels = read_labels(folder) if sweep["evaluate"].get("labels") else HumanLabels({}, {})
    return Run(folder, sweep, trials, points, summarise(points, sweep["search"]), labels)


def headline(run: Run, split: str = "report") -> list[Headline]:
    """Returns every arm's best point, measured on a split; the recommended point is the best of its arm."""
    chosen = run.outcome["recommended"] or {}
    best = {arm: run.outcome["best"][arm] for arm in run.arms if arm in run.outcome["best"]}
    rows = [
        headline_row(run, arm, point, split, recommended=(arm, point) == (chosen.get("arm"), chosen.get("point")))
        for arm, point in best.items()
    ]
    return [row for row in rows if row]


def headline_row(run: Run, arm: str, point: str, split: str = "report", recommended: bool = False) -> Headline | None:
    """Returns any point in the form of a headline row, with its rates on a split; None if it was not measured there."""
    row = run.row(arm, point, split)
    if row is None:
        return None
    rates = {metric: rate_in(row, metric) for metric in run.metrics}
    spread = {metric: (row[f"{metric}_min"], row[f"{metric}_max"]) for metric in run.metrics}
    runs = {
        metric: (row[f"{metric}_runs_low"], row[f"{metric}_runs_high"]) for metric in run.metrics if row["seeds"] > 1
    }
    measured = {metric: rate_in(row, metric) for metric in metrics_of(run.points)}
    corrected = corrected_rates(measured, list(run.judges)[:1], run.judges) | _from_labels(run, arm, point)
    own = settings(run.sweep, arm, point)
    keeps = rates[ASR.name].n > 0 and rates[ASR.name].high <= run.sweep["search"]["target_asr"]
    meets = keeps and not is_incoherent(row)
    return Headline(arm, point, own, rates, spread, runs, row["seeds"], recommended, row, corrected, meets)


def _from_labels(run: Run, arm: str, point: str) -> dict[str, Rate]:
    """Returns each benchmark's attack success by human labels, for a point with one seed whose answers have some."""
    evaluations = set(run.trials_of(arm, point, "report")["evaluation"])
    if len(evaluations) != 1 or not evaluations & {answer.partition(":")[0] for answer in run.labels.drawn}:
        return {}
    (evaluation,) = evaluations
    rows = with_labels(read_rows(run.stage("evaluation", evaluation)), evaluation, run.labels.drawn)
    harmful = rows[rows["kind"] == ASR.kind]
    return {f"{ASR.name}/{name}": labelled_rate(part, ASR, 0.975) for name, part in harmful.groupby("benchmark")}


def settings(sweep: dict[str, Any], arm: str, point: str) -> dict[str, Any]:
    """Returns a point's settings by `defense.parameter`: the searched values and the non-default constants."""
    searched: dict[str, Any] = json.loads(point)
    named: dict[str, Any] = {}
    for step in sweep["arms"].get(arm, []):
        for key, value in _own_values(step).items():
            by_type = {f"{key}.{kind}": inner for kind, inner in value.items()} if isinstance(value, dict) else {}
            named |= {key: value} | by_type
    named |= searched
    return {name: value for name, value in named.items() if isinstance(value, int | float | str)}


def _own_values(step: dict[str, Any]) -> dict[str, Any]:
    """Returns a step's non-default settings by `defense.parameter`.

    Reading a run does not need the user's defenses: if one can't be loaded, all its recorded settings are returned.
    """
    try:
        read = Step.model_validate(step)
    except ValidationError:
        ((reference, values),) = step.items()
        return {f"{reference.rpartition(':')[2]}.{name}": value for name, value in values.items()}
    values = read.settings.model_dump(mode="json", exclude_defaults=True)
    return {f"{read.name}.{name}": value for name, value in values.items()}


def failures(run: Run) -> list[Point]:
    """Returns an entry per failed trial: trial, arm, point, seed, error, log."""
    failed = run.trials[run.trials["status"] == "failed"].drop_duplicates("trial")
    return rows_of(failed.reindex(columns=["trial", "arm", "point", "seed", "error", "log"]).fillna(""))


def stopped(run: Run) -> list[Point]:
    """Returns an entry per point that racing stopped: arm, settings, share, asr (a Rate, of seed 0) and reason."""
    rows = rows_of(run.trials[run.trials["status"] == "stopped"].drop_duplicates(["arm", "point"]))
    return [
        {"arm": row["arm"], "share": row["share"], "reason": row["reason"], "asr": rate_in(row, "asr")}
        | {"settings": settings(run.sweep, row["arm"], row["point"])}
        for row in rows
    ]


def in_words(values: dict[str, Any]) -> str:
    """Returns settings as `parameter value, ...`; a name that two defenses share is prefixed with the defense."""
    short = [name.rsplit(".", 1)[-1] for name in values]
    names = [last if short.count(last) == 1 else name for name, last in zip(values, short, strict=True)]
    return ", ".join(f"{name} {_number(value)}" for name, value in zip(names, values.values(), strict=True))


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def benchmark_rates(row: Headline) -> list[tuple[str, Rate, Rate]]:
    """Returns benchmark, attack success as judged, and attack success corrected for the judge's known errors."""
    return [(name.partition("/")[2], rate_in(row.pooled, name), rate) for name, rate in row.corrected.items()]


def beside_published(run: Run) -> list[tuple[str, Headline, Rate, float]]:
    """Returns benchmark, row, rate here and published share, for everything that both run and paper measured."""
    if run.published is None:
        return []
    return [
        (name, row, rate_in(row.pooled, metric), shares[row.arm])
        for name, shares in run.published.rates.items()
        for metric in (f"{ASR.name}/{name}", f"{ACCURACY.name}/{name}")
        for row in headline(run)
        if row.arm in shares and metric in row.pooled
    ]


def rate_in_words(rate: Rate) -> str:
    """Returns a rate in percent as `12.0% [8.1, 17.3] n=216`."""
    value = "unknown" if math.isnan(rate.value) else f"{rate.value:.1%}"
    return f"{value} [{rate.low * 100:.1f}, {rate.high * 100:.1f}] n={rate.n}"


def unscored_in_words(rate: Rate) -> str:
    """Returns the unscored share as `1.9% unscored`, or an empty string at 0; a positive share never shows as 0.0%."""
    if rate.unscored <= 0:
        return ""
    return f"{rate.unscored:.1%} unscored" if rate.unscored >= 0.0005 else "<0.1% unscored"
