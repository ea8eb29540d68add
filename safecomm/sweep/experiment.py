"""One part of a sweep as a Ray Tune experiment: the fine-tunes, the search, or what is published."""

import logging
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from safecomm.cluster.session import CPU_SHARE
from safecomm.errors import StoppedError
from safecomm.search.arms import Trial
from safecomm.search.early_stopping import EarlyStopping, asking
from safecomm.search.queue import TrialQueue
from safecomm.search.run_folder import RunFolder
from safecomm.search.search_queue import SearchQueue
from safecomm.statistics.domain import domain_of
from safecomm.sweep.stages import Stages
from safecomm.sweep.trial import carry_out, failure, is_lost

RETRIES = 3
"""How often a trial is tried again that lost its process, or others that it needed, as when a node is gone.

A node that was preempted is not counted."""


def experiment(
    name: str, queue: TrialQueue, most: int, at_a_time: int, stages: Stages, folder: RunFolder, console: Console
) -> None:
    """Has Ray Tune carry out the trials of a queue.

    Args:
        name: the experiment's name, and its folder's under the run's `tune/`.
        queue: hands out the trials.
        most: how many these will be at most.
        at_a_time: limit on concurrent trials.
        stages: the sweep's stages.
        folder: keeps the trials' records.
        console: where progress goes.

    Raises:
        StoppedError: where the user stopped it.
    """
    # Before Ray Tune is imported: its own tables and log files stay off, ours say it all.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    from ray import tune

    from safecomm.sweep.progress import Progress
    from safecomm.sweep.searcher import QueueSearcher
    from safecomm.sweep.tracking import tracking_callbacks

    if queue.is_done:
        return
    # It logs a traceback for each process that died; ours says so in a line, and the traceback is in error.txt.
    logging.getLogger("ray.tune.execution.tune_controller").setLevel(logging.CRITICAL)
    left = [trial for trial in queue.trials if not folder.find(trial)]
    arms, total = Counter(trial.arm for trial in left), most - len(queue.trials) + len(left)
    sweep = stages.sweep
    target, domain = sweep.search.target_asr, domain_of(sweep.domain)
    progress = Progress(console, total, name=name, arms=arms, target_asr=target, domain=domain)
    race = EarlyStopping.of(stages.sweep, queue, most, stages.store) if isinstance(queue, SearchQueue) else None
    searcher = QueueSearcher(queue, folder, race)
    tuner = tune.Tuner(
        tune.with_resources(_trainable(name, stages, folder), {"CPU": CPU_SHARE}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=most,
            max_concurrent_trials=at_a_time,
            reuse_actors=True,  # a process each would import torch for every trial
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
    with _signal_handlers_given_back():
        tuner.fit()
    if searcher.was_stopped:
        raise StoppedError("the sweep was stopped; what was finished is kept, and the same command goes on with it")


@contextmanager
def _signal_handlers_given_back() -> Iterator[None]:
    """Undoes that Ray Tune keeps its handlers after its run: the next Ctrl-C would only be noted where nobody looks."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _trainable(name: str, stages: Stages, folder: RunFolder) -> Callable[[dict[str, Any]], None]:
    """Returns what Ray Tune runs for a trial. A trial that fails leaves a record and disturbs no other."""

    def run_trial(config: dict[str, Any]) -> None:
        from ray import tune

        trial, entry = Trial.of(config["trial"]), config["race"]
        race = {"rungs": entry["rungs"], "look": asking(entry, trial, tune.report)} if entry else {}
        try:
            folder.check_fine_tune(trial)
            record = carry_out(trial, stages, **race)
        except Exception as error:  # whatever it is, it is this trial's alone
            if is_lost(error):
                raise  # Ray Tune tries it again
            record = failure(trial, error)
        log = f"{folder.tune}/{name}/{Path(tune.get_context().get_trial_dir()).name}/stderr"
        tune.report(folder.keep(replace(record, log=log)).to_json())

    return run_trial
