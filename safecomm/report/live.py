"""The report of a sweep that may still run, from the records of the trials that have ended."""

import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from safecomm.report.explorer import packed
from safecomm.report.page import render
from safecomm.report.run import headline, in_words, rate_in_words, run_of, settings
from safecomm.report.run_files import read_json, read_saved_sweep, with_sorted_points
from safecomm.report.samples import samples
from safecomm.report.trials_table import table_of
from safecomm.search.fine_tunes import TRAIN
from safecomm.search.record import TrialRecord
from safecomm.search.run_folder import RunFolder
from safecomm.spec import read_sweep
from safecomm.statistics.domain import domain_of
from safecomm.statistics.metric_table import ASR
from safecomm.storage import shared
from safecomm.storage.names import PLAN, REPORT, REPORT_ANSWERS, SWEEP
from safecomm.storage.store import Store

RECENT = 10
"""The trials that are listed, the last first."""


@dataclass(frozen=True)
class Status:
    """How far a sweep is."""

    version: str
    """Changes whenever the report does."""
    is_published: bool
    """Whether the sweep has ended and written its report."""
    line: str
    """The trials that have ended, in words."""
    recent: list[str]
    """The trials that ended last, in words."""


class LiveReport:
    """The report page of a run folder: `report.html` once it is written, and before that one of the trials so far.

    Args:
        folder: the run folder.

    Raises:
        SpecError: if the sweep of the run can't be read here, e.g. because its own defenses are elsewhere.
    """

    def __init__(self, folder: Path):
        self._sweep = read_sweep(folder / SWEEP)
        self._run = RunFolder(self._sweep.model_copy(update={"storage": shared.address(folder.parent)}))
        self._rendering = threading.Lock()
        self._page = ("", "")
        self._status: Status | None = None

    def status(self) -> Status:
        """Returns how far the sweep is; in a bucket, after fetching what other nodes wrote."""
        self._run.fetch()
        version = self._version()
        if self._status is None or self._status.version != version:
            self._status = self._status_now(version)
        return self._status

    def _status_now(self, version: str) -> Status:
        records = self._run.records()
        line = _in_words(records, self._planned())
        if self._is_published():
            return Status(version, True, f"The sweep has ended: {line}.", [])
        recent = [self._trial_in_words(record) for record in records[: -RECENT - 1 : -1]]
        since = _since(self._run) if records else ""
        return Status(version, False, f"{line}{since}.", recent)

    def page(self) -> str:
        """Returns the page as HTML; it is rendered once for each version."""
        if self._is_published():
            return (self._run.path / REPORT).read_text(encoding="utf-8")
        with self._rendering:
            version = self._version()
            if self._page[0] != version:
                self._page = (version, self._rendered())
            return self._page[1]

    def answers(self) -> str:
        """Returns the script beside `report.html` with very many answers; empty if there is none."""
        path = self._run.path / REPORT_ANSWERS
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    def _rendered(self) -> str:
        measured = [record for record in self._run.records() if record.split != TRAIN or record.status == "failed"]
        if not any(record.status == "done" for record in measured):
            return NOTHING_YET
        trials = with_sorted_points(table_of(measured, Store(self._run.path.parent / "store")).assign(names="[]"))
        run = run_of(self._run.path, read_saved_sweep(self._run.path), trials)
        return render(run, packed(run, samples(run, headline(run)), most_inside=2**63))

    def _version(self) -> str:
        times = self._run.record_times().values()
        return f"{len(times)}-{max(times, default=0)}-{self._is_published()}"

    def _is_published(self) -> bool:
        report = self._run.path / REPORT
        if not report.is_file():
            return False
        written = report.stat().st_mtime_ns
        return all(one <= written for one in self._run.record_times().values())

    def _trial_in_words(self, record: TrialRecord) -> str:
        """Returns a trial with its settings and its attack success, or the error that ended it."""
        searched = in_words(settings(self._sweep.resolved(), record.arm, record.point))
        name = f"{' '.join(filter(None, [record.arm, searched]))}, {record.split}"
        if record.status == "failed":
            return f"{name}: failed: {record.error}"
        rate = record.rates.get(ASR.name)
        return f"{name}: {ASR.words(domain_of(self._sweep.domain))} {rate_in_words(rate)}" if rate else name

    def _planned(self) -> int | None:
        """Returns the most trials of the search, if the plan was written."""
        if not (self._run.path / PLAN).is_file():
            return None
        return sum(int(arm["trials"]) for arm in read_json(self._run.path, PLAN)["arms"].values())


NOTHING_YET = """<!doctype html><html lang="en"><meta charset="utf-8"><title>No results yet</title>
<style>:root { color-scheme: light dark; } body { font: 15px/1.55 system-ui, sans-serif; margin: 40px; }</style>
<p>No trial has ended yet. The report appears here with the first one.</p></html>
"""


def _in_words(records: list[TrialRecord], planned: int | None) -> str:
    """Returns how many trials have ended on each split: `search: 5 of at most 7 trials, 1 failed; report: 2 trials`."""
    counts: dict[str, Counter[str]] = {}
    for record in records:
        counts.setdefault(record.split, Counter())[record.status] += 1
    parts = []
    for split, by_status in counts.items():
        most = f" of at most {planned}" if split == "search" and planned else ""
        noun = "fine-tune" if split == TRAIN else "trial"
        trials = f"{split}: {by_status.total()}{most} {noun}{'s' if by_status.total() != 1 or most else ''}"
        notes = [f"{by_status[name]} {words}" for name, words in OTHER.items() if by_status[name]]
        parts.append(", ".join([trials, *notes]))
    return "; ".join(parts) or "no trial has ended yet"


OTHER = {"failed": "failed", "stopped": "stopped early"}


def _since(run: RunFolder) -> str:
    last = max(run.record_times().values(), default=0)
    return f"; the last one ended at {time.strftime('%H:%M:%S', time.localtime(last / 1e9))}"
