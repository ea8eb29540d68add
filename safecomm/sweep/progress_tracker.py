"""Tracks an experiment's progress: finished trials per arm, running trials and the estimated time left."""

import math
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from safecomm.search.arms import Trial
from safecomm.search.record import TrialRecord
from safecomm.statistics.metric_table import ACCURACY, ASR, INCOHERENCE, MOST_INCOHERENT

Report = Mapping[str, Any]
"""A running trial's report on its current stage."""
WINDOW_SECONDS = 60.0
"""Window over which the answer rate is measured."""
EVALUATION = ("rung", "rungs", ASR.name, ACCURACY.name, "answered", "asked", "tokens")


@dataclass(frozen=True)
class Pace:
    """How fast the engines answer the running trials."""

    answers: float
    """Per second."""
    tokens: float
    """Generated tokens of these answers, per second."""


@dataclass
class Arm:
    """One arm's trials in this experiment."""

    planned: int | None = None
    """Total number of trials, if known."""
    ended: Counter[str] = field(default_factory=Counter)
    """`done`, `stopped` or `failed` -> number of trials."""
    seconds: float = 0.0
    """Total run time, without failed trials: they may fail early and would bias the mean."""
    best: TrialRecord | None = None

    @property
    def measured(self) -> int:
        """Trials that ended without failing."""
        return self.ended["done"] + self.ended["stopped"]


@dataclass
class Running:
    """A running trial."""

    trial: Trial
    since: float
    latest: dict[str, Any] = field(default_factory=dict)
    """The latest report of its current stage."""

    def update(self, result: Report) -> tuple[int, int]:
        """Records a report; returns the answers, and their tokens, since the previous one."""
        if "train/step" in result:
            self.latest = {key: value for key, value in result.items() if key.startswith("train/")}
            return 0, 0
        before = self.latest
        # Values missing from a report stay valid, except those of the fine-tune, which has ended.
        merged = {**self.latest, **result}
        self.latest = {key: merged[key] for key in EVALUATION if key in merged}
        if self.latest.get("answered", 0) < before.get("answered", 0):  # a new rung counts from 0
            before = {}
        answers, tokens = (int(self.latest.get(key, 0)) - int(before.get(key, 0)) for key in ("answered", "tokens"))
        return answers, tokens


class ProgressTracker:
    """Tracks an experiment's trials.

    Args:
        total: number of trials.
        arms: arm -> number of its trials, if known.
        target_asr: the target attack success rate.
        clock: a monotonic clock in seconds.
    """

    def __init__(self, total: int, arms: Mapping[str, int], target_asr: float | None, clock: Callable[[], float]):
        self.total = total
        self.arms = {arm: Arm(planned) for arm, planned in arms.items()}
        self.running: dict[str, Running] = {}
        self._target = target_asr
        self._clock = clock
        self._started = clock()
        self._max_concurrent = 1
        self._answers: deque[tuple[float, int, int]] = deque()

    @property
    def ended(self) -> int:
        """Trials that have ended, with any status."""
        return sum(arm.ended.total() for arm in list(self.arms.values()))

    @property
    def spent(self) -> float:
        """Seconds since the experiment started."""
        return self._clock() - self._started

    def seconds_of(self, running: Running) -> float:
        """Returns how long a trial has been running."""
        return self._clock() - running.since

    def start(self, trial_id: str, trial: Trial) -> None:
        """Records the start of a trial."""
        self.arms.setdefault(trial.arm, Arm())
        self.running[trial_id] = Running(trial, self._clock())
        self._max_concurrent = max(self._max_concurrent, len(self.running))

    def update(self, trial_id: str, result: Report) -> None:
        """Records a report from a running trial."""
        new = self.running[trial_id].update(result)
        if "answered" in result:
            self._answers.append((self._clock(), *new))

    def end(self, trial_id: str, trial: Trial, record: TrialRecord) -> float:
        """Records a trial's result; returns its run time in seconds."""
        arm = self.arms.setdefault(trial.arm, Arm())
        running = self.running.pop(trial_id, None)
        seconds = self.seconds_of(running) if running else 0.0
        arm.ended[record.status] += 1
        if record.status != "failed":
            arm.seconds += seconds
        if record.status == "done" and not math.isnan(record.value(ASR.name)):
            arm.best = record if arm.best is None else max(arm.best, record, key=self._rank)
        return seconds

    def is_under_target(self, record: TrialRecord) -> bool:
        """Returns whether a record meets the target attack success rate."""
        return self._target is not None and record.value(ASR.name) <= self._target

    def seconds_left(self) -> float | None:
        """Estimates the remaining time from past run times and the number of concurrent trials.

        The estimate for a trial is the mean of its arm's ended trials, or of all ended trials if its arm has none.

        Returns:
            None if no trial has ended without failing, or if only trials remain that already run longer than the mean.
        """
        if not any(arm.measured for arm in self.arms.values()):
            return None
        running = [max(0.0, self._mean(one.trial.arm) - self.seconds_of(one)) for one in list(self.running.values())]
        waiting = self._waiting()
        work = sum(running) + sum(self._mean(arm) * trials for arm, trials in waiting.items())
        if running and not work:
            return None
        at_a_time = min(self._max_concurrent, max(1, len(running) + sum(waiting.values())))
        return max(work / at_a_time, *running, 0.0)

    def _waiting(self) -> dict[str, int]:
        """Returns arm -> number of trials not yet started; the key "" counts those of unknown arm."""
        running = Counter(one.trial.arm for one in list(self.running.values()))
        waiting = {
            name: max(0, arm.planned - arm.ended.total() - running[name])
            for name, arm in list(self.arms.items())
            if arm.planned is not None
        }
        rest = self.total - self.ended - running.total() - sum(waiting.values())
        return {**waiting, "": max(0, rest)}

    def _mean(self, name: str) -> float:
        """Returns the mean run time of an arm's trials, or of all trials if none of the arm's has ended."""
        arm = self.arms.get(name)
        arms = [arm] if arm and arm.measured else list(self.arms.values())
        return sum(one.seconds for one in arms) / sum(one.measured for one in arms)

    def _rank(self, record: TrialRecord) -> tuple[bool, bool, float, float]:
        """Returns a sort key: coherent trials that meet the target rank by accuracy, others by attack success."""
        asr, accuracy = record.value(ASR.name), record.value(ACCURACY.name)
        accuracy = -math.inf if math.isnan(accuracy) else accuracy
        is_coherent = not record.value(INCOHERENCE.name) > MOST_INCOHERENT
        places = (True, accuracy, -asr) if self.is_under_target(record) else (False, -asr, accuracy)
        return (is_coherent, *places)

    def answers_waiting(self) -> int | None:
        """Returns the number of unanswered prompts, or None if no trial reports any."""
        reports = [one.latest for one in list(self.running.values()) if "asked" in one.latest]
        return sum(report["asked"] - report.get("answered", 0) for report in reports) if reports else None

    def pace(self) -> Pace | None:
        """Returns the fleet's pace since the oldest report in the window, None if that is the only one."""
        now = self._clock()
        while self._answers and self._answers[0][0] < now - WINDOW_SECONDS:
            self._answers.popleft()
        if len(self._answers) < 2 or now <= (since := self._answers[0][0]):
            return None
        # The oldest report counts answers from before the window.
        _, answers, tokens = zip(*list(self._answers)[1:], strict=True)
        return Pace(sum(answers) / (now - since), sum(tokens) / (now - since))
