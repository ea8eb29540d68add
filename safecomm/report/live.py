"""The report of a sweep that may still run, from the records of the trials that have ended."""

import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safecomm.report.explorer import packed
from safecomm.report.page import render
from safecomm.report.run import Run, headline, in_words, rate_in_words, run_of, settings
from safecomm.report.run_files import read_json, read_saved_sweep, with_sorted_points
from safecomm.report.samples import Samples, samples
from safecomm.report.trials_table import table_of
from safecomm.search.activity import Activity
from safecomm.search.fine_tunes import TRAIN
from safecomm.search.record import TrialRecord
from safecomm.spec import REFERENCE_ARMS
from safecomm.statistics.domain import TELECOM, domain_of
from safecomm.statistics.metric_table import ASR
from safecomm.storage import shared
from safecomm.storage.input_files import read_json as read_file
from safecomm.storage.lock import is_held
from safecomm.storage.names import PLAN, RECORDS, REPORT, REPORT_ANSWERS
from safecomm.storage.store import Store

RECENT = 10
"""The trials that are listed, the last first."""


@dataclass(frozen=True)
class Status:
    """How far a sweep is."""

    version: str
    """Changes whenever the report does."""
    line: str
    """Whether the sweep runs, and the trials that have ended, in words."""
    recent: list[str]
    """The trials that ended last, in words."""
    running: list[str]
    """The trials that run, each with its stage, in words."""
    fleet: str = ""
    """The pace of the engines, the questions that wait for them, and their replicas, in words."""


class LiveReport:
    """The report page of a run folder: `report.html` once it is written, and before that one of the trials so far.

    Args:
        folder: the run folder.

    Raises:
        UsageError: if it has no sweep, or a damaged one.
    """

    def __init__(self, folder: Path):
        self.folder = folder.resolve()
        read_saved_sweep(self.folder)
        self._rendering = threading.Lock()
        self._page = ("", "")
        self._ended = Status("", "", [], [])

    def status(self) -> Status:
        """Returns how far the sweep is; in a bucket, after fetching what other nodes wrote."""
        for part in (self.folder, self.folder / RECORDS):
            shared.fetch(part)
        if (version := self._version()) != self._ended.version:
            self._ended = self._read(version)
        if not is_held(shared.lease_records(self.folder / ".lock")):
            return replace(self._ended, line=f"{self._why_idle()} {self._ended.line}")
        now = Activity.read(self.folder)
        line = " ".join(filter(None, ["The sweep is running.", f"{now.line}." if now.line else "", self._ended.line]))
        return replace(self._ended, line=line, running=now.trials, fleet=now.fleet)

    def _why_idle(self) -> str:
        return "The sweep has ended." if self._is_published() else "Nothing runs; run the sweep again to continue it."

    def _read(self, version: str) -> Status:
        """Returns the status of the trials that have ended, without whether others run."""
        sweep = read_saved_sweep(self.folder)
        records = records_of(self.folder, sweep)
        since = f", the last one on {_last(self.folder)}" if records else ""
        recent = [_trial_in_words(sweep, record) for record in records[: -RECENT - 1 : -1]]
        return Status(version, f"Ended so far{since}: {_in_words(records, self._planned())}.", recent, [])

    def page(self) -> str:
        """Returns the page as HTML; it is rendered once for each version."""
        if self._is_published():
            return (self.folder / REPORT).read_text(encoding="utf-8")
        with self._rendering:
            version = self._version()
            if self._page[0] != version:
                self._page = (version, self._rendered())
            return self._page[1]

    def answers(self) -> str:
        """Returns the script beside `report.html` with very many answers; empty if there is none."""
        path = self.folder / REPORT_ANSWERS
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    def _rendered(self) -> str:
        sweep = read_saved_sweep(self.folder)
        records = records_of(self.folder, sweep)
        measured = [record for record in records if record.split != TRAIN or record.status == "failed"]
        if not any(record.status == "done" for record in measured):
            return NOTHING_YET
        trials = with_sorted_points(table_of(measured, Store(self.folder.parent / "store")).assign(names="[]"))
        run = run_of(self.folder, sweep, trials)
        return render(run, packed(run, _samples(run), most_inside=2**63), is_final=False)

    def _version(self) -> str:
        times = record_times(self.folder).values()
        return f"{len(times)}-{max(times, default=0)}-{self._is_published()}"

    def _is_published(self) -> bool:
        report = self.folder / REPORT
        if not report.is_file():
            return False
        written = report.stat().st_mtime_ns
        return all(one <= written for one in record_times(self.folder).values())

    def _planned(self) -> int | None:
        """Returns the most trials of the search, if the plan was written."""
        if not (self.folder / PLAN).is_file():
            return None
        return sum(int(arm["trials"]) for arm in read_json(self.folder, PLAN)["arms"].values())


def _samples(run: Run) -> Samples:
    """Returns the answers on the report split once it has those of as many arms as the search split."""
    report, search = headline(run), headline(run, "search")
    return samples(run, search, "search") if len(report) < len(search) else samples(run, report)


def records_of(folder: Path, sweep: dict[str, Any]) -> list[TrialRecord]:
    """Returns the records of the sweep's arms, the oldest first.

    Those of other models or benchmarks than the newest record's are left out.
    """
    times, found = record_times(folder), []
    for path in sorted(times, key=times.__getitem__):
        with suppress(OSError, ValueError, TypeError):  # removed just now, or damaged: the sweep repeats the trial
            found.append(TrialRecord.from_json(read_file(path)))
    newest = {_kind(record): record.context for record in found}
    arms = {*REFERENCE_ARMS, *sweep["arms"]}
    return [
        record
        for record in found
        if record.context == newest[_kind(record)] and (record.arm in arms or record.split == TRAIN)
    ]


def _kind(record: TrialRecord) -> str:
    """Returns what a record's context depends on, apart from the model and the benchmarks."""
    return "generation" if record.generation else "tamper" if record.tamper else "trial"


def record_times(folder: Path) -> dict[Path, int]:
    """Returns the files of the trials' records, and when each was written, in nanoseconds since 1970."""
    times = {}
    for path in (folder / RECORDS).glob("*.json"):
        with suppress(FileNotFoundError):  # removed just now
            times[path] = path.stat().st_mtime_ns
    return times


NOTHING_YET = """<!doctype html><html lang="en"><meta charset="utf-8"><title>No results yet</title>
<style>:root { color-scheme: light dark; } body { font: 15px/1.55 system-ui, sans-serif; margin: 40px; }</style>
<p>No trial has succeeded yet. The report appears here with the first one.</p></html>
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
    return "; ".join(parts) or "no trial"


OTHER = {"failed": "failed", "stopped": "stopped early"}


def _last(folder: Path) -> str:
    seconds = max(record_times(folder).values(), default=0) / 1e9
    return time.strftime("%Y-%m-%d at %H:%M:%S", time.localtime(seconds))


def _trial_in_words(sweep: dict[str, Any], record: TrialRecord) -> str:
    """Returns a trial with its settings and its attack success, or the error that ended it."""
    name = " ".join(filter(None, [record.arm, in_words(settings(sweep, record.arm, record.point))]))
    name = f"{name}, {record.split}"
    if record.status == "failed":
        return f"{name}: failed: {record.error}"
    rate, domain = record.rates.get(ASR.name), domain_of(sweep.get("domain", TELECOM.name))
    return f"{name}: {ASR.words(domain)} {rate_in_words(rate)}" if rate else name
