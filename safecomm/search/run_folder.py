"""A sweep's run folder, with the records of its trials."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from safecomm.data.rows import stored_name
from safecomm.errors import TrainingError
from safecomm.search.arms import Trial
from safecomm.search.fine_tunes import TRAIN, fine_tunes_of
from safecomm.search.record import TrialRecord
from safecomm.search.tampering import further_training
from safecomm.spec import ORIGINAL, Sweep
from safecomm.storage import shared
from safecomm.storage.checksums import content_digest
from safecomm.storage.input_files import read_json
from safecomm.storage.names import RECORDS
from safecomm.storage.store import digest, write_json
from safecomm.storage.versions import version

logger = logging.getLogger(__name__)


class RunFolder:
    """The folder of the files that belong to one sweep only: `<storage>/<name>/`."""

    def __init__(self, sweep: Sweep):
        self.path = shared.local_folder(sweep.storage) / sweep.name
        # Everything that determines a trial's result. Labels do not: they only measure the judges.
        parts = sweep.resolved()
        del parts["evaluate"]["labels"]
        parts["evaluate"] = {stored_name(key): value for key, value in parts["evaluate"].items()}
        context = {key: parts[key] for key in ("model", "finetune", "evaluate")}
        context["version"] = version("responses", "replies", "surprisal", "evaluation")
        if sweep.search.split == "report":
            context["split"] = "report"
        if sweep.search.release_split:
            context["release"] = sweep.search.release_split
        if own := sweep.own_code:
            context["own code"] = own
        if files := _contents([parts["finetune"], parts["evaluate"]]):
            context["files"] = files
        self._context = digest(context)
        tamper, later = parts.get("tamper"), (parts.get("drift") or {}).get("generations")
        limits = [parts["search"][name] for name in ("target_asr", "max_over_refusal_rise")]
        if tamper and "max_accuracy_drop" in tamper:  # it decides what is asked; its value matters to the report only
            tamper["max_accuracy_drop"] = True
        self._tamper_context = digest([context, tamper, *filter(None, [_contents(tamper)])])
        self._drift_context = digest([context, later, limits, *filter(None, [_contents(later)])])
        self._stops_early, self._seeds = sweep.stops_early, sweep.seeds
        self._warned: set[Path] = set()

    def fetch(self) -> None:
        """Copies the trials' records and the run's files that other nodes wrote to this one.

        Optuna's journal is not copied: the records alone reproduce the search.
        """
        for folder in (self.path, self.path / RECORDS):
            shared.prune(folder)
            shared.fetch(folder)

    def publish(self, *names: str) -> None:
        """Makes files of the run available to the other nodes."""
        for name in names:
            shared.publish(self.path / name)

    @property
    def tune(self) -> str:
        """The folder or URL to which Ray Tune writes."""
        return shared.address(self.path / "tune")

    def record_path(self, trial: Trial) -> Path:
        """Returns the file of a trial's record."""
        return self._path(trial.arm, trial.id, trial.split)

    def find(self, trial: Trial) -> TrialRecord | None:
        """Returns a trial's record if it has ended with the same model, fine-tune and benchmarks.

        A trial that stopped early counts only if trials do so in this sweep, by a comparison over as many seeds.
        """
        record = self.record(trial)
        return record if record and self._has_ended(record) else None

    def _has_ended(self, record: TrialRecord) -> bool:
        if record.context != self._context_of(record):
            return False
        was_stopped = record.status == "stopped" and self._stops_early and (record.compared_seeds or 1) == self._seeds
        return record.status == "done" or was_stopped

    def count(self, arm: str) -> int:
        """Returns the number of an arm's search trials that have ended, whatever their points."""
        found = (self._read(path) for path in (self.path / RECORDS).glob(f"{arm}-*-search.json"))
        return sum(record is not None and record.arm == arm and self._has_ended(record) for record in found)

    def record(self, trial: Trial) -> TrialRecord | None:
        """Returns a trial's record, whatever its status; None if it is missing or unreadable."""
        return self._read(self.record_path(trial))

    def _read(self, path: Path) -> TrialRecord | None:
        try:
            return TrialRecord.from_json(read_json(path))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            if path not in self._warned:
                self._warned.add(path)
                reason = " ".join(str(error).split())
                logger.warning("%s is not a valid trial record (%s); its trial counts as not done", path, reason)
            return None

    def check_fine_tune(self, trial: Trial) -> None:
        """Refuses a trial whose fine-tune failed in this run, so that the trials sharing it do not train it again.

        Raises:
            TrainingError: if the fine-tune failed, with the reason.
        """
        if trial.split == TRAIN or trial.arm == ORIGINAL:
            return
        for needed in [*fine_tunes_of(trial), *([further_training(trial)] if trial.tamper else [])]:
            shared.fetch(self.record_path(needed))
            record = self.record(needed)
            if record and record.status == "failed" and record.context == self._context_of(record):
                raise TrainingError(f"its fine-tune failed: {record.error}")

    def keep(self, record: TrialRecord) -> TrialRecord:
        """Writes a trial's record and returns it as written, with its `context`."""
        whole = replace(record, context=self._context_of(record))
        path = self._path(record.arm, record.trial, record.split)
        write_json(path, whole.to_json())
        shared.publish(path)
        return whole

    def _context_of(self, record: TrialRecord) -> str:
        if record.generation:
            return self._drift_context
        return self._tamper_context if record.tamper else self._context

    def _path(self, arm: str, trial_id: str, split: str) -> Path:
        return self.path / RECORDS / f"{arm}-{trial_id}-{split}.json"


def _contents(section: Any) -> dict[str, str]:
    """Returns the hashes of the user's own files in a section of a sweep: a file may change and keep its name."""
    if isinstance(section, list):
        return {path: found for one in section for path, found in _contents(one).items()}
    if not isinstance(section, dict):
        return {}
    own = [value for key, value in section.items() if key in ("path", "adapter") and isinstance(value, str)]
    return {path: content_digest(Path(path).expanduser()) for path in own} | _contents(list(section.values()))
