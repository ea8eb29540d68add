"""The progress table shown in a terminal, and its text formatting."""

import math
from collections.abc import Mapping

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from safecomm.search.arms import Trial
from safecomm.statistics.metric_table import ACCURACY, ASR
from safecomm.sweep.progress_tracker import Arm, ProgressTracker, Running

SHOWN_RUNNING = 4
"""Running trials listed per arm; further ones are only counted."""


class ProgressTable:
    """The experiment's progress as a table; rich renders it on every refresh."""

    def __init__(self, tracker: ProgressTracker, name: str):
        self._tracker = tracker
        self._name = name
        self.is_over = False

    def __rich__(self) -> Group:
        """Renders the current state."""
        head = summary(self._tracker, self._name, self.is_over)
        fleet = fleet_pace(self._tracker)
        return Group("", Text(head, style="bold"), self._table(), *([Text(f"fleet: {fleet}")] if fleet else []))

    def _table(self) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0), expand=True)
        table.add_column("arm", no_wrap=True)
        for count in ("done", "running", "stopped\nearly", "failed"):
            table.add_column(count, justify="right", no_wrap=True)
        table.add_column(f"best: {ASR.short}\n& {ACCURACY.short}", no_wrap=True)
        table.add_column("running now", ratio=1, overflow="fold")
        for name, arm in list(self._tracker.arms.items()):
            running = [one for one in list(self._tracker.running.values()) if one.trial.arm == name]
            table.add_row(Text(name), *self._counts(arm, len(running)), self._best(arm), self._now(running))
        return table

    def _counts(self, arm: Arm, running: int) -> list[Text]:
        done, stopped, failed = (arm.ended[status] for status in ("done", "stopped", "failed"))
        of = "" if arm.planned is None else f"/{arm.planned}"
        red = "red" if failed else ""
        return [Text(f"{done}{of}"), Text(str(running)), Text(str(stopped)), Text(str(failed), style=red)]

    def _best(self, arm: Arm) -> Text:
        if arm.best is None:
            return Text("")
        green = "green" if self._tracker.is_under_target(arm.best) else ""
        return Text(f"{percent(arm.best.value(ASR.name))}, {percent(arm.best.value(ACCURACY.name))}", style=green)

    def _now(self, running: list[Running]) -> Text:
        lines = [
            ": ".join(filter(None, [point(one.trial), f"{stage(one)}, {duration(self._tracker.seconds_of(one))}"]))
            for one in running[:SHOWN_RUNNING]
        ]
        more = [f"and {len(running) - SHOWN_RUNNING} more"] if len(running) > SHOWN_RUNNING else []
        return Text("\n".join(lines + more))


def summary(tracker: ProgressTracker, name: str, is_over: bool = False) -> str:
    """Formats how far an experiment is."""
    left = "" if is_over else f", {time_left(tracker)}"
    return f"{name}: {tracker.ended} of {tracker.total} trials ended, {duration(tracker.spent)} spent{left}"


def fleet_pace(tracker: ProgressTracker) -> str:
    """Formats how fast the engines answer; empty if no trial asks them."""
    waiting, pace = tracker.answers_waiting(), tracker.pace()
    if waiting is None:
        return ""
    answers, tokens = ("?", "?") if pace is None else (f"{pace.answers:.1f}", f"{pace.tokens:,.0f}")
    return f"{tokens} tokens/s, {answers} answers/s, {waiting:,} waiting"


def replicas_in_words(fleets: Mapping[str, tuple[int, int]]) -> str:
    """Formats the replicas of each fleet that run, and that exist."""
    return ", ".join(f"{name} {running} of {known} replicas" for name, (running, known) in fleets.items())


def point(trial: Trial) -> str:
    """Formats a trial's settings and seed."""
    return " ".join(trial.settings + ([f"seed {trial.seed}"] if trial.seed else []))


def stage(running: Running) -> str:
    """Formats the stage and progress of a running trial."""
    latest = running.latest
    if "train/step" in latest:
        return f"fine-tune step {latest['train/step']} of {latest['train/steps']}, loss {latest['train/loss']:.3f}"
    if not latest:
        return "started"
    rung = f" rung {latest['rung']} of {latest['rungs']}" if "rung" in latest else ""
    answers = [f"{latest['answered']:,} of {latest['asked']:,} answered"] if "answered" in latest else []
    known = [one for one in (ASR, ACCURACY) if not math.isnan(latest.get(one.name, math.nan))]
    rates = [f"{one.short} {percent(latest[one.name])}" for one in known]
    return ", ".join([f"evaluation{rung}", *answers, *rates])


def percent(value: float) -> str:
    """Formats a rate; a rate without verdicts is NaN."""
    return "unknown" if math.isnan(value) else f"{value:.1%}"


def time_left(tracker: ProgressTracker) -> str:
    """Formats an experiment's remaining time."""
    seconds = tracker.seconds_left()
    return "? left" if seconds is None else f"~{duration(seconds)} left"


def duration(seconds: float) -> str:
    """Formats a duration with sensible precision."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
