"""A sweep's own folder, with the records of its trials."""

import json
import logging
from dataclasses import replace
from pathlib import Path

from safecomm.data.rows import stored_name
from safecomm.errors import TrainingError
from safecomm.search.arms import Trial
from safecomm.search.fine_tunes import TRAIN, fine_tunes_of
from safecomm.search.record import TrialRecord
from safecomm.spec import ORIGINAL, Sweep
from safecomm.storage import shared
from safecomm.storage.store import digest, write_json
from safecomm.storage.versions import version

logger = logging.getLogger(__name__)


class RunFolder:
    """Where one sweep keeps what belongs to it alone: `<storage>/<name>/`."""

    def __init__(self, sweep: Sweep):
        self.path = shared.local_folder(sweep.storage) / sweep.name
        # What a trial's result depends on; the rest may change from run to run, the labels too: they measure judges.
        parts = sweep.resolved()
        del parts["evaluate"]["labels"]
        parts["evaluate"] = {stored_name(key): value for key, value in parts["evaluate"].items()}
        context = {key: parts[key] for key in ("model", "finetune", "evaluate")}
        context["version"] = version("responses", "replies", "evaluation")
        if sweep.search.split == "report":
            context["split"] = "report"
        if own := sweep.own_code:
            context["own code"] = own
        self._context = digest(context)
        self._races = bool(sweep.search.racing)
        self._warned: set[Path] = set()

    def fetch(self) -> None:
        """Brings what other nodes wrote to this one: the trials' records and the run's files.

        Optuna's journal is not among them: the search is the same again from the records alone.
        """
        for folder in (self.path, self.path / "trials"):
            shared.prune(folder)
            shared.fetch(folder)

    def publish(self, *names: str) -> None:
        """Shows files of the run to the other nodes."""
        for name in names:
            shared.publish(self.path / name)

    @property
    def tune(self) -> str:
        """Where Ray Tune writes, a folder or a URL."""
        return shared.address(self.path / "tune")

    def record_path(self, trial: Trial) -> Path:
        """Returns the file of a trial's record."""
        return self._path(trial.arm, trial.id, trial.split)

    def find(self, trial: Trial) -> TrialRecord | None:
        """Returns the record of a trial that is over under the same model, fine-tune and benchmarks.

        One that stopped early is over as long as the sweep races.
        """
        record = self.record(trial)
        if record is None or record.context != self._context:
            return None
        is_over = record.status == "done" or (record.status == "stopped" and self._races)
        return record if is_over else None

    def count(self, arm: str) -> int:
        """Returns how many trials of an arm's search left a record, of whatever settings."""
        return len(list((self.path / "trials").glob(f"{arm}-*-search.json")))

    def record(self, trial: Trial) -> TrialRecord | None:
        """Returns the record that a trial left, done or failed; None where there is none that can be read."""
        path = self.record_path(trial)
        try:
            return TrialRecord.from_json(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            if path not in self._warned:
                self._warned.add(path)
                reason = " ".join(str(error).split())
                logger.warning("%s is not a trial's record (%s); its trial counts as not done", path, reason)
            return None

    def check_fine_tune(self, trial: Trial) -> None:
        """Refuses a trial whose fine-tune failed in this run: each that shares it would train it in vain.

        Raises:
            TrainingError: with the fine-tune's own reason.
        """
        if trial.split == TRAIN or trial.arm == ORIGINAL:
            return
        for needed in fine_tunes_of(trial):
            shared.fetch(self.record_path(needed))
            record = self.record(needed)
            if record and record.status == "failed" and record.context == self._context:
                raise TrainingError(f"its fine-tune failed: {record.error}")

    def keep(self, record: TrialRecord) -> TrialRecord:
        """Writes a trial's record, and returns it as written: with what it holds for."""
        whole = replace(record, context=self._context)
        path = self._path(record.arm, record.trial, record.split)
        write_json(path, whole.to_json())
        shared.publish(path)
        return whole

    def _path(self, arm: str, trial_id: str, split: str) -> Path:
        return self.path / "trials" / f"{arm}-{trial_id}-{split}.json"
