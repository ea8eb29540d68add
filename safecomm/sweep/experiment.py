"""Runs one part of a sweep as a Ray Tune experiment: the fine-tunes, the search or the report."""

import logging
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from safecomm.cluster.session import CPU_SHARE
from safecomm.errors import StoppedError
from safecomm.search.arms import Trial
from safecomm.search.early_stopping import EarlyStopping, asking
from safecomm.search.queue import TrialQueue
from safecomm.search.run_folder import RunFolder
from safecomm.search.search_queue import SearchQueue
from safecomm.statistics.domain import domain_of
from safecomm.sweep.generation import carry_out_generation
from safecomm.sweep.stages import Stages
from safecomm.sweep.trial import carry_out, failure, is_lost

if TYPE_CHECKING:
    from ray import tune

    from safecomm.sweep.progress import Progress
    from safecomm.sweep.searcher import QueueSearcher

RETRIES = 3
"""Retries of a trial whose process, or one that it depends on, died, e.g. because a node failed.

Retries after a node was preempted don't count."""
UNCAUGHT = "TUNE_DISABLE_SIGINT_HANDLER"
"""The variable with which users keep Ray Tune from catching Ctrl-C."""


def experiment(
    name: str, queue: TrialQueue, most: int, at_a_time: int, stages: Stages, folder: RunFolder, console: Console
) -> None:
    """Runs the trials of a queue with Ray Tune.

    Args:
        name: name of the experiment and of its folder in the run's `tune/`.
        queue: provides the trials.
        most: the maximum number of trials.
        at_a_time: limit on concurrent trials.
        stages: the sweep's stages.
        folder: stores the trials' records.
        console: the output console for progress.

    Raises:
        StoppedError: if the user stopped the sweep.
    """
    # Must be set before Ray Tune is imported. Our progress output replaces its tables and log files.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    from safecomm.cluster.ray_internals import retry_trials_killed_for_memory
    from safecomm.sweep.searcher import QueueSearcher

    if queue.is_done:
        return
    retry_trials_killed_for_memory()
    # Tune logs a traceback for each process that died. We print one line; the traceback is in error.txt.
    logging.getLogger("ray.tune.execution.tune_controller").setLevel(logging.CRITICAL)
    race = EarlyStopping.of(stages.sweep, queue, most, stages.store) if isinstance(queue, SearchQueue) else None
    searcher = QueueSearcher(queue, folder, race)
    tuner = _tuner(
        name, searcher, most, at_a_time, stages, folder, _progress(name, queue, most, stages, folder, console)
    )
    with _signal_handlers_restored() as stop:
        tuner.fit()
    if searcher.was_stopped or stop.is_set():
        raise StoppedError("the sweep was stopped; finished work is kept; run the same command again to resume")


def _progress(
    name: str, queue: TrialQueue, most: int, stages: Stages, folder: RunFolder, console: Console
) -> "Progress":
    """Returns the output of an experiment, which counts only the trials that are still to run."""
    from safecomm.sweep.progress import Progress

    remaining = [trial for trial in queue.trials if not folder.find(trial)]
    arms, total = Counter(trial.arm for trial in remaining), most - len(queue.trials) + len(remaining)
    target, domain = stages.sweep.search.target_asr, domain_of(stages.sweep.domain)
    return Progress(console, total, name=name, arms=arms, target_asr=target, domain=domain, folder=folder.path)


def _tuner(
    name: str,
    searcher: "QueueSearcher",
    most: int,
    at_a_time: int,
    stages: Stages,
    folder: RunFolder,
    progress: "Progress",
) -> "tune.Tuner":
    from ray import tune

    from safecomm.sweep.tracking import tracking_callbacks

    return tune.Tuner(
        tune.with_resources(_trainable(name, stages, folder), {"CPU": CPU_SHARE}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=most,
            max_concurrent_trials=at_a_time,
            reuse_actors=True,  # a new process per trial would import torch every time
            trial_dirname_creator=lambda trial: f"{trial.config['trial']['arm']}-{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=folder.tune,
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            callbacks=[progress, *tracking_callbacks(stages.sweep, folder)],
            log_to_file=True,
            sync_config=tune.SyncConfig(sync_artifacts=True),
            verbose=0,
        ),
    )


@contextmanager
def _signal_handlers_restored() -> Iterator[threading.Event]:
    """Restores the signal handlers on exit: Ray Tune leaves its own in place, which would ignore the next Ctrl-C.

    Yields:
        An event that is set on exit if Ray Tune took a Ctrl-C: its handler then puts the former one back. Tune itself
        does not tell, and the trials don't if all of them have just ended.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGUSR1)}
    in_main = threading.current_thread() is threading.main_thread()
    is_caught, stop = in_main and os.environ.get(UNCAUGHT, "0") == "0", threading.Event()
    try:
        yield stop
    finally:
        if is_caught and signal.getsignal(signal.SIGINT) is handlers[signal.SIGINT]:
            stop.set()
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _trainable(name: str, stages: Stages, folder: RunFolder) -> Callable[[dict[str, Any]], None]:
    """Returns the function that Ray Tune runs for each trial. A failed trial is recorded and does not affect others."""

    def run_trial(config: dict[str, Any]) -> None:
        from ray import tune

        trial, entry = Trial.of(config["trial"]), config["race"]
        race = {"rungs": entry["rungs"], "look": asking(entry, tune.report)} if entry else {}
        log = f"{folder.tune}/{name}/{Path(tune.get_context().get_trial_dir()).name}/stderr"
        try:
            folder.check_fine_tune(trial)
            if (generation := trial.generation) and (drift := stages.sweep.drift):
                record = carry_out_generation(trial, generation, drift, stages, folder)
            else:
                record = carry_out(trial, stages, **race, count=_reported)
        except Exception as error:  # any failure affects only this trial
            record = failure(trial, error)
            if is_lost(error):
                folder.keep(replace(record, log=log))  # the reason, in case every retry fails
                raise  # Ray Tune retries the trial
        tune.report(folder.keep(replace(record, log=log)).to_json())

    return run_trial


def _reported(answered: int, asked: int, tokens: int) -> None:
    """Reports to the driver how many questions of a trial are answered, with how many tokens."""
    from ray import tune

    tune.report({"answered": answered, "asked": asked, "tokens": tokens})
