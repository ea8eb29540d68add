"""Writes a run folder's results from the trials' records: `trials.parquet`, `pareto.json` and `report.html`."""

import json
from pathlib import Path

import pandas as pd

from safecomm.errors import SafecommError
from safecomm.report.certificate import write_certificate
from safecomm.report.choice import Limits, best_of_arms
from safecomm.report.guide import write_guide
from safecomm.report.page import write_report
from safecomm.report.points import pooled, rows_of
from safecomm.report.run import read_run
from safecomm.report.summary import write_pareto
from safecomm.report.trials_table import table_of
from safecomm.search.arms import Trial, seeded
from safecomm.search.drift import drift_trials, tried_points
from safecomm.search.record import TrialRecord
from safecomm.search.run_folder import RunFolder
from safecomm.search.search_queue import SearchQueue
from safecomm.search.tampering import tamper_trials
from safecomm.spec import ORIGINAL, REFERENCE_ARMS, Sweep
from safecomm.storage.names import CERTIFICATE, GUIDE, PARETO, REPORT, REPORT_ANSWERS, TRIALS
from safecomm.storage.output_files import whole_file
from safecomm.storage.store import Store


def trials_table(sweep: Sweep, folder: RunFolder, trials: list[Trial]) -> pd.DataFrame:
    """Returns a row per recorded trial and split, with the columns `REFUSAL_RISE`."""
    return table_of([record for trial in trials if (record := folder.record(trial))], Store.of(sweep.storage))


def report_points(sweep: Sweep, folder: RunFolder, searched: list[Trial]) -> list[Trial]:
    """Returns the trials to measure on the report and the release split: the reference arms and each arm's best point.

    The points are chosen on the search split.
    """
    table = trials_table(sweep, folder, searched)
    if table.empty or not (table["status"] == "done").any():
        return []
    points = pooled(table, Store.of(sweep.storage))
    originals = rows_of(points[points["arm"] == ORIGINAL])
    original = originals[0] if originals else None
    limits = Limits(sweep.search.target_asr, sweep.search.max_over_refusal_rise)
    best = best_of_arms(points, limits, original)
    chosen = dict.fromkeys([(arm, "{}") for arm in REFERENCE_ARMS] + list(best.items()))
    splits = sweep.search.reported_splits
    return [
        trial for split in splits for arm, point in chosen for trial in seeded(sweep, arm, json.loads(point), split)
    ]


def unpublished(sweep: Sweep, folder: RunFolder, searched: list[Trial]) -> list[Trial]:
    """Returns the trials that are still to run after the search: on other splits, and of `tamper` and `drift`.

    A released adapter that the store has lost, or that is damaged there, is made again.
    """
    store = Store.of(sweep.storage)

    def is_done(trial: Trial) -> bool:
        record = folder.find(trial)
        return record is not None and not _has_lost_its_adapter(trial, record, store)

    return [trial for trial in _published(sweep, folder, searched) if not is_done(trial)]


def _has_lost_its_adapter(trial: Trial, record: TrialRecord, store: Store) -> bool:
    if trial.tamper or trial.generation or not record.adapter_path:
        return False
    stage, key = Path(record.adapter_path).parts[-2:]
    return store.find(stage, key) is None


def _published(sweep: Sweep, folder: RunFolder, searched: list[Trial]) -> list[Trial]:
    """Returns the trials whose results the report shows beside those of the search."""
    reported = report_points(sweep, folder, searched)
    tried = tried_points(sweep, searched, folder.find)
    return reported + tamper_trials(sweep, reported) + drift_trials(sweep, reported, tried)


def publish(sweep: Sweep, folder: RunFolder, queue: SearchQueue, fine_tunes: list[Trial]) -> None:
    """Writes the results so far: `trials.parquet`, `pareto.json`, `certificate.json`, `guide.md` and `report.html`.

    Equivalent points share one row, which lists them in its column `names`.

    Args:
        sweep: the sweep.
        folder: its run folder.
        queue: the search.
        fine_tunes: the shared fine-tunes; failed ones are listed.

    Raises:
        SafecommError: if no trial succeeded; has the first trial's error and log.
    """
    searched = queue.trials + _published(sweep, folder, queue.trials)
    table = trials_table(sweep, folder, searched + [trial for trial in fine_tunes if not folder.find(trial)])
    names = {trial.id: json.dumps(queue.names(trial), sort_keys=True) for trial in searched}
    table["names"] = [names.get(trial, "[]") for trial in table["trial"]]
    with whole_file(folder.path / TRIALS) as half:
        table.to_parquet(half)
    folder.publish(TRIALS)
    if not (table["status"] == "done").any():
        error, log = table["error"].iloc[0], table["log"].iloc[0]
        raise SafecommError(f"{folder.path}: all trials failed; the first one with: {error} (log: {log})")
    write_pareto(folder.path)
    run = read_run(folder.path)
    write_certificate(run, Store.of(sweep.storage))
    write_guide(run)
    write_report(folder.path)
    answers = [REPORT_ANSWERS] if (folder.path / REPORT_ANSWERS).exists() else []
    folder.publish(PARETO, CERTIFICATE, GUIDE, *answers, REPORT)
