"""Progress output: a live table in a terminal, otherwise plain lines."""

import io
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from safecomm.search.activity import Activity
from safecomm.search.arms import Trial
from safecomm.search.record import Status, TrialRecord
from safecomm.statistics.metrics import Rate
from safecomm.sweep.progress import Progress

ARMS = {"original": 1, "safe_merge": 4}
METRICS = ("asr", "accuracy", "over_refusal")
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


@dataclass
class TuneTrial:
    """What the callback reads of a trial of Ray Tune."""

    trial_id: str
    arm: str = "safe_merge"
    weight: float = 0.5
    last_result: dict[str, Any] = field(default_factory=dict)
    local_path: str = "/session/trial"

    @property
    def ours(self) -> Trial:
        point = {} if self.arm == "original" else {"safe_merge.weight": self.weight}
        return Trial(self.arm, point, chain=(("safe_merge", point),), seed=0)

    @property
    def config(self) -> dict[str, Any]:
        return {"trial": self.ours.as_config()}


class Watched:
    """An experiment that is watched on a console: Ray Tune's calls, a clock that is set by hand, what is on screen."""

    def __init__(self, terminal: bool, total: int = 5, **options: Any):
        self.written = io.StringIO()
        console = Console(file=self.written, force_terminal=terminal, width=100, height=40)
        self.now = 0.0
        self.progress = Progress(console, total, clock=lambda: self.now, **options)
        self.progress.setup(stop=None, num_samples=total, total_num_samples=total)

    def start(self, *trials: TuneTrial) -> None:
        for trial in trials:
            self.progress.on_trial_start(1, [], trial)

    def report(self, trial: TuneTrial, seconds: float = 0.0, **result: Any) -> None:
        self.now += seconds
        self.progress.on_trial_result(1, [], trial, result)

    def train(self, trial: TuneTrial, step: int, steps: int = 8) -> None:
        report = {"step": step, "steps": steps, "loss": 1.25, "tokens_per_second": 3000.0}
        self.report(trial, **{f"train/{key}": value for key, value in report.items()})

    def complete(self, trial: TuneTrial, status: Status = "done", seconds: float = 0.0, **result: Any) -> None:
        self.now += seconds
        rates = {metric: Rate(result.pop(metric), 0.0, 1.0, 10, 0.0) for metric in METRICS if metric in result}
        trial.last_result = TrialRecord.of(trial.ours, status, rates=rates, **result).to_json()
        self.progress.on_trial_complete(1, [], trial)

    def end(self) -> None:
        self.progress.on_experiment_end([])

    def screen(self) -> list[str]:
        """What is seen after the next step of Ray Tune's loop."""
        self.now += 1
        self.progress.on_step_end(1, [])
        return seen(self.written.getvalue())

    def row(self, arm: str) -> str:
        return next(line for line in reversed(self.screen()) if line.startswith(arm))

    def line(self, start: str) -> str:
        return next((line for line in reversed(self.screen()) if line.startswith(start)), "")


def seen(written: str) -> list[str]:
    """Plays what was written to a terminal that knows colours, line ends and the codes by which rich redraws."""
    lines, at = [""], 0
    for part in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", written):
        if part == "\n":
            at += 1
            lines += [""] * (at == len(lines))
        elif part == "\x1b[1A":
            at -= 1
        elif part == "\x1b[2K":
            lines[at] = ""
        elif part[0] not in "\x1b\r":
            lines[at] += part
    return [line.rstrip() for line in lines]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    monkeypatch.setenv("TERM", "xterm")
    watched = Watched(terminal=True, name="search", arms=ARMS, target_asr=0.1)
    yield watched
    watched.end()


@pytest.fixture
def lines() -> Watched:
    return Watched(terminal=False)


def test_each_arm_has_a_row_that_counts_its_trials(terminal: Watched) -> None:
    trials = [TuneTrial(str(number)) for number in range(4)]
    terminal.start(*trials)
    terminal.complete(trials[0], asr=0.2, accuracy=0.6)
    terminal.complete(trials[1], "stopped", reason="no better than 3 others", asr=0.4)
    terminal.complete(trials[2], "failed", error="out of memory", log="/run/stderr")
    assert re.match(r"original +0/1 +0 +0 +0$", terminal.row("original"))
    assert re.match(r"safe_merge +1/4 +1 +1 +1 +20\.0%, 60\.0% +weight=0\.5: started", terminal.row("safe_merge"))
    assert "3 of 5 trials ended" in terminal.line("search:")


def test_retried_trial_is_shown_and_counted_once(lines: Watched) -> None:
    trial = TuneTrial("1")
    lines.start(trial)
    lines.train(trial, step=4)
    lines.progress.on_trial_recover(1, [], trial)
    lines.start(trial)
    lines.train(trial, step=4)
    lines.complete(trial, asr=0.2)
    told = lines.written.getvalue()
    assert "its process, or one that it depends on, died; retrying" in told
    assert told.count("fine-tune step 4 of 8") == 2
    assert "  1/5" in told


def test_best_trial_is_the_safest_or_the_most_accurate_within_the_target(
    terminal: Watched,
) -> None:
    shown = []
    for number, (asr, accuracy) in enumerate([(0.3, 0.7), (0.2, 0.6), (0.0, 0.4), (0.1, 0.5), (0.15, 0.9)]):
        trial = TuneTrial(str(number))
        terminal.start(trial)
        terminal.complete(trial, asr=asr, accuracy=accuracy)
        shown.append(terminal.row("safe_merge").split("  ")[-1])
    assert shown == ["30.0%, 70.0%", "20.0%, 60.0%", "0.0%, 40.0%", "10.0%, 50.0%", "10.0%, 50.0%"]


def test_unscored_or_stopped_trials_are_never_the_best(terminal: Watched) -> None:
    trials = [TuneTrial(str(number)) for number in range(2)]
    terminal.start(*trials)
    terminal.complete(trials[0], asr=float("nan"), accuracy=0.9)
    terminal.complete(trials[1], "stopped", reason="", asr=0.0, accuracy=0.9)
    assert "%" not in terminal.row("safe_merge")


def test_a_running_trial_shows_its_stage_and_its_seconds(terminal: Watched) -> None:
    trial = TuneTrial("a", weight=0.75)
    terminal.start(trial)
    terminal.train(trial, 2)
    assert "weight=0.75: fine-tune step 2 of 8, loss 1.250, 1 s" in told(terminal)
    terminal.report(trial, answered=1200, asked=4000)
    assert "weight=0.75: evaluation, 1,200 of 4,000 answered, 2 s" in told(terminal)
    terminal.report(trial, rung=2, rungs=3, asr=0.25, accuracy=0.5)
    assert "evaluation rung 2 of 3, 1,200 of 4,000 answered, attack 25.0%, accuracy 50.0%, 3 s" in told(terminal)
    terminal.complete(trial, asr=0.25, accuracy=0.5)
    assert "evaluation" not in told(terminal)


def told(watched: Watched) -> str:
    """The column on the right, its lines as one."""
    screen = watched.screen()
    start = next(line for line in screen if line.startswith("arm")).index("running now")
    return " ".join(line[start:] for line in screen if not line.startswith(("search", "fleet")))


def test_many_running_trials_do_not_push_the_table_off_the_screen(terminal: Watched) -> None:
    terminal.start(*(TuneTrial(str(number)) for number in range(30)))
    assert "and 26 more" in "\n".join(terminal.screen())
    assert len(terminal.screen()) < 20


def test_answer_rate_covers_all_trials(terminal: Watched) -> None:
    first, second = TuneTrial("a"), TuneTrial("b")
    terminal.start(first, second)
    assert not terminal.line("fleet")
    terminal.report(first, answered=100, asked=1000, tokens=9000)
    assert terminal.line("fleet") == "fleet: ? tokens/s, ? answers/s, 900 waiting"
    terminal.report(second, seconds=4, answered=50, asked=1000, tokens=500)
    terminal.report(first, seconds=4, answered=200, asked=1000, tokens=18_100)
    assert terminal.line("fleet") == "fleet: 960 tokens/s, 15.0 answers/s, 1,750 waiting"
    terminal.report(first, answered=80, asked=2000, tokens=400)  # the next rung counts from 0
    assert terminal.line("fleet") == "fleet: 909 tokens/s, 20.9 answers/s, 2,870 waiting"
    terminal.now += 60
    assert terminal.line("fleet") == "fleet: ? tokens/s, ? answers/s, 2,870 waiting"


def test_time_left_accounts_for_concurrency_and_progress() -> None:
    lines = Watched(terminal=False, total=9)
    trials = [TuneTrial(str(number)) for number in range(4)]
    lines.start(*trials[:3])
    lines.complete(trials[0], seconds=100)
    # Two have used up the mean of 100 s, six of 100 s are to come, three at a time.
    assert "1/9 ~3 min left" in lines.written.getvalue()
    lines.start(trials[3])
    lines.complete(trials[1], seconds=20)
    # The mean is 110 s: none left of one, 90 s of the other, five of 110 s to come.
    assert "2/9 ~4 min left" in lines.written.getvalue()


def test_time_left_uses_each_arms_mean(terminal: Watched) -> None:
    short, long = TuneTrial("a", "original"), TuneTrial("b")
    terminal.start(short)
    terminal.complete(short, seconds=10)
    terminal.start(long)
    terminal.complete(long, seconds=600)
    assert "~30 min left" in terminal.line("search")


def test_time_left_is_unknown_at_first_and_when_trials_are_overdue() -> None:
    lines = Watched(terminal=False, total=3)
    trials = [TuneTrial(str(number)) for number in range(3)]
    lines.start(*trials)
    lines.complete(trials[0], "failed", seconds=1, error="out of memory")
    lines.complete(trials[1], seconds=100)
    assert "1/3 ? left" in lines.written.getvalue()
    assert "2/3 ? left" in lines.written.getvalue()


def test_events_scroll_above_the_table_which_stays_below_them(terminal: Watched) -> None:
    trials = [TuneTrial(str(number)) for number in range(3)]
    terminal.start(*trials)
    terminal.complete(trials[0], asr=0.2, accuracy=0.6, over_refusal=0.1, seconds=7)
    terminal.complete(trials[1], "failed", error="out of memory", log="/run/tune/b/stderr")
    screen = terminal.screen()
    events = [number for number, line in enumerate(screen) if re.match(r" +\d/5 ", line)]
    heads = [number for number, line in enumerate(screen) if line.startswith("search:")]
    assert "attack success 20.0%, telecom accuracy 60.0%, over-refusal 10.0% (7 s)" in screen[events[0]]
    assert "failed: out of memory; its log: /run/tune/b/stderr" in screen[events[1]]
    assert len(events) == 2 and len(heads) == 1 and events[-1] < heads[0]
    assert "started" not in "\n".join(screen[: heads[0]])


def test_other_output_scrolls_above_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", ours)
    terminal = Watched(terminal=True, name="search")
    print("from elsewhere")
    screen = terminal.screen()
    terminal.end()
    assert screen.index("from elsewhere") < next(row for row, line in enumerate(screen) if line.startswith("search"))
    assert sys.stdout is ours


def test_terminal_is_restored_with_the_final_state(terminal: Watched) -> None:
    terminal.start(TuneTrial("a"))
    terminal.end()
    written = terminal.written.getvalue()
    assert written.rindex(SHOW_CURSOR) > written.rindex(HIDE_CURSOR)
    assert terminal.line("search") == "search: 0 of 5 trials ended, 0 s spent"
    assert re.match(r"safe_merge +0/4 +0 +0 +0$", terminal.row("safe_merge"))


def test_terminal_is_restored_after_a_crash() -> None:
    script = (
        "from rich.console import Console\n"
        "from safecomm.sweep.progress import Progress\n"
        "Progress(Console(force_terminal=True), 5).setup()\n"
        "raise KeyboardInterrupt"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, env={**os.environ, "TERM": "xterm"})
    written = ended.stdout.decode()
    assert b"KeyboardInterrupt" in ended.stderr
    assert HIDE_CURSOR in written and written.rindex(SHOW_CURSOR) > written.rindex(HIDE_CURSOR)


def test_a_terminal_that_cannot_redraw_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    watched = Watched(terminal=True)
    watched.start(TuneTrial("a"))
    watched.end()
    assert "started" in watched.written.getvalue() and HIDE_CURSOR not in watched.written.getvalue()


def test_without_a_terminal_each_event_is_a_line_without_codes(lines: Watched) -> None:
    trial = TuneTrial("a")
    lines.start(trial)
    for step in range(1, 9):
        lines.train(trial, step)
    for rung in (1, 2):
        for _ in range(2):
            lines.report(trial, rung=rung, rungs=2, asr=0.5, accuracy=0.25)
    lines.complete(trial, "stopped", reason="no better than 3 others", asr=0.5, accuracy=0.25, seconds=12)
    lines.end()
    name, space = "safe_merge weight=0.5", " " * 10
    assert lines.written.getvalue().splitlines() == [
        f"{space}{name} started",
        *(f"{space}{name}: fine-tune step {step} of 8, loss 1.250, 3,000 tokens/s" for step in (2, 4, 6, 8)),
        *(f"{space}{name}: evaluation rung {rung} of 2, attack 50.0%, accuracy 25.0%" for rung in (1, 2)),
        f"  1/5 ~48 s left {name}: stopped early: no better than 3 others, "
        "attack success 50.0%, telecom accuracy 25.0% (12 s)",
    ]


def test_each_stage_prints_four_progress_lines(lines: Watched) -> None:
    trial = TuneTrial("a")
    lines.start(trial)
    for step in [*range(1, 101), *range(1, 101)]:
        lines.train(trial, step, 100)
    lines.report(trial, training_iteration=201)
    for answered in range(0, 1001, 10):
        lines.report(trial, answered=answered, asked=1000)
    said = [line.partition(": ")[2].partition(", loss")[0] for line in lines.written.getvalue().splitlines()[1:]]
    assert said == [
        *[f"fine-tune step {step} of 100" for step in (25, 50, 75, 100)] * 2,
        *[f"evaluation, {answered} of 1,000 answered" for answered in ("250", "500", "750", "1,000")],
    ]


def test_failed_trial_shows_its_reason_verbatim_and_its_log(lines: Watched) -> None:
    failed, died = TuneTrial("a"), TuneTrial("b", local_path="/session/b")
    lines.start(failed, died)
    lines.complete(failed, "failed", error="\x1b[36mray::run\x1b[39m: no [bold] key", log="/run/[a]/stderr")
    lines.progress.on_trial_error(1, [], died)
    assert "failed: ray::run: no [bold] key; its log: /run/[a]/stderr (" in lines.written.getvalue()
    assert (
        "failed: its process, or one that it depends on, died repeatedly; its log: /session/b/error.txt ("
        in lines.written.getvalue()
    )
    assert "\x1b" not in lines.written.getvalue()


def test_trial_without_a_result_counts_as_failed(lines: Watched) -> None:
    trial = TuneTrial("a", last_result={"train/step": 3})
    lines.start(trial)
    lines.progress.on_trial_complete(1, [], trial)
    assert "failed: it ended without a result" in lines.written.getvalue()


def test_ray_tune_can_pickle_the_callback_while_the_table_is_live(terminal: Watched) -> None:
    assert pickle.dumps(terminal.progress)


def test_the_run_folder_says_what_runs_now(tmp_path: Path) -> None:
    watched = Watched(terminal=False, name="search", arms=ARMS, folder=tmp_path)
    training, asked = TuneTrial("a", weight=0.5), TuneTrial("b", weight=0.7)
    watched.start(training, asked)
    watched.train(training, step=2)
    watched.report(asked, seconds=30, answered=40, asked=100)
    watched.screen()
    now = Activity.read(tmp_path)
    assert now.line.startswith("search: 0 of 5 trials ended") and now.fleet == "? tokens/s, ? answers/s, 60 waiting"
    assert now.trials[0].endswith("fine-tune step 2 of 8, loss 1.250, 3,000 tokens/s, 31 s")
    assert "40 of 100 answered" in now.trials[1]
    watched.complete(training)
    watched.end()
    assert Activity.read(tmp_path).trials == []


def test_a_run_folder_that_is_gone_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    watched = Watched(terminal=False, folder=tmp_path / "file")
    watched.start(TuneTrial("a"))
    watched.screen()
    assert Activity.read(tmp_path / "file") == Activity()
