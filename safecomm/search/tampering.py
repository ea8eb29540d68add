"""The trials that train released adapters further and measure them (section `tamper`)."""

from collections.abc import Iterable
from dataclasses import replace

from safecomm.search.arms import TAMPER, Trial
from safecomm.search.fine_tunes import TRAIN
from safecomm.spec import ORIGINAL, Sweep


def tamper_trials(sweep: Sweep, reported: Iterable[Trial]) -> list[Trial]:
    """Returns a trial for each released adapter, training set, learning rate and number of steps.

    Args:
        sweep: the sweep.
        reported: the trials of the report split. `original` has no adapter to train further.
    """
    if sweep.tamper is None:
        return []
    # A single learning rate is left out, so that trials keep their ids.
    rates = sweep.tamper.learning_rates if isinstance(sweep.tamper.learning_rate, list) else [None]
    return [
        replace(trial, split=TAMPER, tamper=curve, learning_rate=rate, steps=steps)
        for trial in reported
        if trial.split == "report" and trial.arm != ORIGINAL
        for curve in sweep.tamper.curves
        for rate in rates
        for steps in sweep.tamper.steps
    ]


def further_training(trial: Trial) -> Trial:
    """Returns the trial that trains the adapters of a tamper trial, which all of its numbers of steps share."""
    return replace(trial, split=TRAIN, steps=0)


def further_trainings(trials: Iterable[Trial]) -> list[Trial]:
    """Returns the distinct trainings of tamper trials."""
    return list({one.id: one for one in map(further_training, trials)}.values())
