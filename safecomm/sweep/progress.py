"""Shows a sweep's progress: a live table in a terminal, otherwise one line per event."""

import atexit
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.tune import Callback
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from safecomm.search.activity import Activity
from safecomm.search.arms import RELEASE, Trial
from safecomm.search.record import TrialRecord
from safecomm.serving.fleet import replicas_of_fleets
from safecomm.statistics.domain import TELECOM, Domain
from safecomm.statistics.metric_table import METRICS
from safecomm.sweep.driver import LOST, DriverOnly
from safecomm.sweep.progress_table import (
    ProgressTable,
    duration,
    fleet_pace,
    percent,
    replicas_in_words,
    stage,
    summary,
    time_left,
)
from safecomm.sweep.progress_tracker import ProgressTracker, Report

QUARTERS = 4
"""Progress lines per fine-tune or evaluation without a terminal."""
REFRESH_SECONDS = 0.5
WRITE_SECONDS = 5.0
"""Interval at which `activity.json` is written."""


class Progress(DriverOnly, Callback):  # type: ignore[misc]
    """Shows the start, progress and result of every trial.

    Args:
        console: the output console.
        total: number of trials.
        name: the experiment's name.
        arms: arm -> number of its trials, if known.
        target_asr: the target attack success rate; the best trial is the most accurate one that meets it.
        domain: names the task in the rates.
        folder: the run folder, for `safecomm view`.
        clock: a monotonic clock in seconds.
    """

    def __init__(
        self,
        console: Console,
        total: int,
        *,
        name: str = "sweep",
        arms: Mapping[str, int] | None = None,
        target_asr: float | None = None,
        domain: Domain = TELECOM,
        folder: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._console = console
        self._domain = domain
        self._tracker = ProgressTracker(total, arms or {}, target_asr, clock)
        self._printed: dict[str, tuple[str, int]] = {}
        self._refreshed = 0.0
        self._name, self._folder, self._written = name, folder, -WRITE_SECONDS
        self._beside: threading.Thread | None = None
        self._replicas: dict[str, tuple[int, int]] = {}
        self._table = ProgressTable(self._tracker, name)
        self._live: Live | None = None
        if console.is_interactive:
            # Refreshed from Ray Tune's loop, not from a thread, because the loop changes the data.
            self._live = Live(self._table, console=console, auto_refresh=False, redirect_stderr=sys.stderr.isatty())

    def setup(self, *args: Any, **info: Any) -> None:
        """Starts the table; an exit handler stops it even if the experiment crashes."""
        if self._live:
            atexit.register(self._live.stop)
            self._live.start(refresh=True)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Refreshes the table between events, and the file for `safecomm view`."""
        if self._folder and self._tracker.spent - self._written >= WRITE_SECONDS:
            self._written = self._tracker.spent
            self._activity().write(self._folder)
            if not (self._beside and self._beside.is_alive()):  # Tune's loop must not wait for Serve or a bucket
                self._beside = threading.Thread(target=self._ask_and_publish, args=[self._folder], daemon=True)
                self._beside.start()
        if self._tracker.spent - self._refreshed >= REFRESH_SECONDS:
            self._refresh()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Announces a trial."""
        ours = Trial.of(trial.config["trial"])
        self._tracker.start(trial.trial_id, ours)
        self._say_plain(f"[dim]          {escape(title(ours))} started[/dim]")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Shows the progress of a fine-tune or an evaluation."""
        if "status" in result:
            return
        self._tracker.update(trial.trial_id, result)
        name, count = milestone(result)
        if count and (name, count) != self._printed.get(trial.trial_id):
            ours = self._tracker.running[trial.trial_id]
            self._say_plain(f"[dim]          {escape(title(ours.trial))}: {stage(ours)}{pace(result)}[/dim]")
        self._printed[trial.trial_id] = (name, count)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Shows a trial's result and the estimated time left."""
        result = trial.last_result or {}
        if "status" in result:
            self._end(trial, TrialRecord.from_json(result))
        else:
            self._fail(trial, error="it ended without a result")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Shows a trial that failed on every retry; Ray Tune's log has the reason."""
        log = f"{trial.local_path}/error.txt"
        self._fail(trial, error=LOST, log=log)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Shows that a trial is retried."""
        self._printed.pop(trial.trial_id, None)
        ours = Trial.of(trial.config["trial"])
        self._say(f"          {escape(title(ours))}: its process, or one that it depends on, died; retrying")

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Stops the table; its final state stays on screen."""
        self._table.is_over = True
        self._tracker.running.clear()  # trials that still ran were interrupted
        if self._folder:
            self._activity().write(self._folder)
        if self._live:
            self._live.stop()
            atexit.unregister(self._live.stop)

    def _fail(self, trial: Any, **known: str) -> None:
        self._end(trial, TrialRecord.of(Trial.of(trial.config["trial"]), "failed", **known))

    def _end(self, trial: Any, record: TrialRecord) -> None:
        ours = Trial.of(trial.config["trial"])
        spent = self._tracker.end(trial.trial_id, ours, record)
        seconds = spent if record.seconds is None else record.seconds
        count = f"[bold]{self._tracker.ended:>3}/{self._tracker.total}[/bold] [dim]{time_left(self._tracker)}[/dim]"
        text = f"{escape(title(ours))}: {outcome(record, self._domain)}"
        self._say(f"{count} {text} [dim]({seconds:.0f} s)[/dim]")

    def _activity(self) -> Activity:
        """Returns what the experiment is doing now."""
        fleet = "; ".join(filter(None, [fleet_pace(self._tracker), replicas_in_words(self._replicas)]))
        running = [
            f"{title(one.trial)}: {stage(one)}{pace(one.latest)}, {duration(self._tracker.seconds_of(one))}"
            for one in self._tracker.running.values()
        ]
        return Activity(summary(self._tracker, self._name, self._table.is_over), running, fleet)

    def _ask_and_publish(self, folder: Path) -> None:
        """Asks Ray Serve how many engines run, for the next activity, and uploads the last one."""
        with suppress(RayError, RayServeException, ConnectionError):  # the cluster is shutting down, or Serve is busy
            self._replicas = replicas_of_fleets()
        Activity.publish(folder)

    def _say_plain(self, line: str) -> None:
        """Prints a line that would duplicate the table; refreshes the table instead if there is one."""
        if self._live:
            self._refresh()
        else:
            self._say(line)

    def _say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, highlight=False, markup=True)

    def _refresh(self) -> None:
        self._refreshed = self._tracker.spent
        if self._live:
            self._live.refresh()


def milestone(result: Report) -> tuple[str, int]:
    """Returns a report's stage and its milestone number; a new line is printed when either changes."""
    if "train/step" in result:
        return "fine-tune", QUARTERS * int(result["train/step"]) // int(result["train/steps"])
    if "rung" in result:
        return "rung", int(result["rung"])
    if "answered" in result:
        return "answers", QUARTERS * int(result["answered"]) // max(1, int(result["asked"]))
    return "", 0


def pace(result: Report) -> str:
    """Formats the speed of a fine-tune; empty for other stages."""
    return f", {result['train/tokens_per_second']:,.0f} tokens/s" if "train/step" in result else ""


def title(trial: Trial) -> str:
    """Formats a trial's arm, settings, seed and split."""
    split = f" on the {trial.split} split" if trial.split in ("report", RELEASE) else ""
    return trial.title + split


def outcome(record: TrialRecord, domain: Domain = TELECOM) -> str:
    """Formats a trial's result as markup."""
    if record.status == "done":
        return rates_line(record, domain)
    if record.status == "stopped":
        return ", ".join(filter(None, [f"stopped early: {plain(record.reason or '')}", rates_line(record, domain)]))
    log = f"; its log: {plain(record.log)}" if record.log else ""
    return f"[red]failed:[/red] {plain(record.error)}{log}"


def rates_line(record: TrialRecord, domain: Domain) -> str:
    """Formats the rates of a record."""
    measured = [one for one in METRICS if one.name in record.rates]
    return ", ".join(f"{one.words(domain)} {percent(record.value(one.name))}" for one in measured)


def plain(text: str) -> str:
    """Escapes foreign text as markup, and removes the ANSI colours of Ray's error messages."""
    return escape(Text.from_ansi(text).plain)
