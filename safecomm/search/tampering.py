"""The trials that train released adapters further and measure them (section `tamper`)."""

from collections.abc import Iterable
from dataclasses import replace

from safecomm.search.arms import TAMPER, Trial
from safecomm.search.fine_tunes import TRAIN
from safecomm.spec import ORIGINAL, Sweep


def tamper_trials(sweep: Sweep, reported: Iterable[Trial]) -> list[Trial]:
    """Returns a trial for each released adapter, training set and number of steps.

    Args:
        sweep: the sweep.
        reported: the trials of the report split. `original` has no adapter to train further.
    """
    if sweep.tamper is None:
        return []
    return [
        replace(trial, split=TAMPER, tamper=curve, steps=steps)
        for trial in reported
        if trial.split == "report" and trial.arm != ORIGINAL
        for curve in sweep.tamper.curves
        for steps in sweep.tamper.steps
    ]


def further_training(trial: Trial) -> Trial:
    """Returns the trial that trains the adapters of a tamper trial, which all of its numbers of steps share."""
    return replace(trial, split=TRAIN, steps=0)


def further_trainings(trials: Iterable[Trial]) -> list[Trial]:
    """Returns the distinct trainings of tamper trials."""
    return list({one.id: one for one in map(further_training, trials)}.values())
