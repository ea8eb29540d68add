"""The tracker: how far each arm of an experiment is, what runs now and how long the rest will take."""

import math
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from safecomm.search.arms import Trial

Record = Mapping[str, Any]
WINDOW_SECONDS = 60.0
"""Over which answers a second are counted."""
EVALUATION = ("rung", "rungs", "asr", "accuracy", "answered", "asked")


@dataclass
class Arm:
    """One arm's trials in this experiment."""

    planned: int | None = None
    """How many there will be, where that is known."""
    ended: Counter[str] = field(default_factory=Counter)
    """`done`, `stopped` or `failed` -> trials."""
    seconds: float = 0.0
    """What those took that did not fail: one that fails early tells nothing of the others."""
    best: Record | None = None

    @property
    def measured(self) -> int:
        """Trials that ended and did not fail."""
        return self.ended["done"] + self.ended["stopped"]


@dataclass
class Running:
    """A trial that runs now."""

    trial: Trial
    since: float
    latest: dict[str, Any] = field(default_factory=dict)
    """What it reported last of the stage that it is in."""

    def update(self, result: Record) -> int:
        """Takes in a report; returns how many prompts were answered since the one before."""
        if "train/step" in result:
            self.latest = {key: value for key, value in result.items() if key.startswith("train/")}
            return 0
        before = self.latest.get("answered", 0)
        # What a report leaves out still holds, but for the fine-tune, which is over.
        of_evaluation = {**self.latest, **result}
        self.latest = {key: of_evaluation[key] for key in EVALUATION if key in of_evaluation}
        answered = int(self.latest.get("answered", 0))
        return answered - before if answered >= before else answered


class ProgressTracker:
    """Counts an experiment's trials.

    Args:
        total: trials of the experiment.
        arms: arm -> its trials in the experiment, where they are known.
        target_asr: the attack success rate that a point should keep.
        clock: gives seconds that never go back.
    """

    def __init__(self, total: int, arms: Mapping[str, int], target_asr: float | None, clock: Callable[[], float]):
        self.total = total
        self.arms = {arm: Arm(planned) for arm, planned in arms.items()}
        self.running: dict[str, Running] = {}
        self._target = target_asr
        self._clock = clock
        self._started = clock()
        self._max_concurrent = 1
        self._answers: deque[tuple[float, int]] = deque()

    @property
    def ended(self) -> int:
        """Trials that have ended, however they did."""
        return sum(arm.ended.total() for arm in list(self.arms.values()))

    @property
    def spent(self) -> float:
        """Seconds since the experiment started."""
        return self._clock() - self._started

    def seconds_of(self, running: Running) -> float:
        """Returns how long a trial has been running."""
        return self._clock() - running.since

    def start(self, trial_id: str, trial: Trial) -> None:
        """Takes in that a trial runs."""
        self.arms.setdefault(trial.arm, Arm())
        self.running[trial_id] = Running(trial, self._clock())
        self._max_concurrent = max(self._max_concurrent, len(self.running))

    def update(self, trial_id: str, result: Record) -> None:
        """Takes in what a running trial reports."""
        answers = self.running[trial_id].update(result)
        if "answered" in result:
            self._answers.append((self._clock(), answers))

    def end(self, trial_id: str, trial: Trial, record: Record) -> float:
        """Takes in what a trial gave, or `status: failed` where it gave nothing; returns how many seconds it ran."""
        arm = self.arms.setdefault(trial.arm, Arm())
        running = self.running.pop(trial_id, None)
        seconds = self.seconds_of(running) if running else 0.0
        arm.ended[record["status"]] += 1
        if record["status"] != "failed":
            arm.seconds += seconds
        if record["status"] == "done" and known(record, "asr"):
            arm.best = record if arm.best is None else max(arm.best, record, key=self._rank)
        return seconds

    def is_under_target(self, record: Record) -> bool:
        """Says whether a record keeps the attack success rate that a point should keep."""
        return self._target is not None and known(record, "asr") and record["asr"] <= self._target

    def seconds_left(self) -> float | None:
        """Estimates the time to the end from how long trials took and how many run at a time.

        Trials of an arm are taken to last as long as that arm's did; where none has ended, as all did.

        Returns:
            None before a trial has ended without failing, and where nothing is left but trials that have run longer
            than those that ended.
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
        """Returns arm -> trials to come; under no arm's name those of which it is not known whose they are."""
        running = Counter(one.trial.arm for one in list(self.running.values()))
        waiting = {
            name: max(0, arm.planned - arm.ended.total() - running[name])
            for name, arm in list(self.arms.items())
            if arm.planned is not None
        }
        rest = self.total - self.ended - running.total() - sum(waiting.values())
        return {**waiting, "": max(0, rest)}

    def _mean(self, name: str) -> float:
        """Returns the mean seconds of an arm's trials, or of all where none of it has ended."""
        arm = self.arms.get(name)
        arms = [arm] if arm and arm.measured else list(self.arms.values())
        return sum(one.seconds for one in arms) / sum(one.measured for one in arms)

    def _rank(self, record: Record) -> tuple[bool, float, float]:
        """Orders trials: under the target by accuracy, else by attack success."""
        accuracy = record["accuracy"] if known(record, "accuracy") else -math.inf
        return (True, accuracy, -record["asr"]) if self.is_under_target(record) else (False, -record["asr"], accuracy)

    def answers_waiting(self) -> int | None:
        """Returns how many prompts have been asked and not answered, or None where no trial says."""
        asked = [one.latest for one in list(self.running.values()) if "asked" in one.latest]
        return sum(news["asked"] - news.get("answered", 0) for news in asked) if asked else None

    def answers_a_second(self) -> float | None:
        """Returns the fleet's pace since the oldest report in the window, or None where that is the only one."""
        now = self._clock()
        while self._answers and self._answers[0][0] < now - WINDOW_SECONDS:
            self._answers.popleft()
        since, counts = next(iter(self._answers), (now, 0))[0], [count for _, count in self._answers]
        # The oldest report tells of answers from before it.
        return sum(counts[1:]) / (now - since) if len(counts) > 1 and now > since else None


def known(record: Record, metric: str) -> bool:
    """Says whether a record has a rate: one that no judge could give is NaN."""
    value = record.get(metric)
    return value is not None and not math.isnan(value)
