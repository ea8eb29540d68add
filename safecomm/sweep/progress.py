"""Tells a person at the terminal how the sweep goes, a line an event."""

import time
from collections.abc import Mapping
from typing import Any

from ray.tune import Callback
from rich.console import Console

from safecomm.sweep.arms import Trial
from safecomm.sweep.driver import DriverOnly

TRAINING_LINES = 4
"""Lines that one fine-tune prints."""


class Progress(DriverOnly, Callback):  # type: ignore[misc]
    """Prints trials as they start, train, end and fail."""

    def __init__(self, console: Console, total: int):
        self._console = console
        self._total = total
        self._ended = 0
        self._started = time.monotonic()
        self._quarter: dict[str, int] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Announces a trial."""
        self._say(f"[dim]          {title(trial)} started[/dim]")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Shows how far a fine-tune is."""
        if "train/step" not in result or "status" in result:
            return
        quarter = TRAINING_LINES * int(result["train/step"]) // int(result["train/steps"])
        if quarter > self._quarter.get(trial.trial_id, 0):
            self._quarter[trial.trial_id] = quarter
            self._say(
                f"[dim]          {title(trial)}: step {result['train/step']} of {result['train/steps']}, "
                f"loss {result['train/loss']:.3f}, {result['train/tokens_per_second']:,.0f} tokens/s[/dim]"
            )

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Shows what a trial gave, and how long the rest may take."""
        self._ended += 1
        result = trial.last_result or {}
        outcome = (
            rates_line(result) if result.get("status") == "done" else f"[red]failed:[/red] {result.get('error', '')}"
        )
        self._say(f"{self._count()} {title(trial)}: {outcome} [dim]({result.get('seconds', 0):.0f} s)[/dim]")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Shows a trial whose process died."""
        self._ended += 1
        self._say(f"{self._count()} {title(trial)}: [red]failed:[/red] its process died; see {trial.local_path}")

    def _say(self, line: str) -> None:
        self._console.print(line, soft_wrap=True, highlight=False)

    def _count(self) -> str:
        spent = time.monotonic() - self._started
        left = spent / self._ended * (self._total - self._ended)
        return f"[bold]{self._ended:>3}/{self._total}[/bold] [dim]~{left / 60:.0f} min left[/dim]"


def title(tune_trial: Any) -> str:
    """Names a trial by its arm, settings, seed and split."""
    trial = Trial.of(tune_trial.config["trial"])
    settings = " ".join(f"{key.rpartition('.')[2]}={value:.4g}" for key, value in trial.point.items())
    seed = f" seed {trial.seed}" if trial.seed else ""
    split = " on the report split" if trial.split == "report" else ""
    return f"{trial.arm}{' ' + settings if settings else ''}{seed}{split}"


def rates_line(record: Mapping[str, Any]) -> str:
    """Words the three rates of a record."""
    words = {"asr": "attack success", "accuracy": "telecom accuracy", "over_refusal": "over-refusal"}
    shown = [f"{word} {record[metric]:.1%}" for metric, word in words.items() if record.get(metric) is not None]
    return ", ".join(shown)
