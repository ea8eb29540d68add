"""One trial: the chain from data to rates, and the record that it leaves."""

import json
import logging
import re
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from safecomm.errors import SafecommError, TrainingError
from safecomm.evaluate.metrics import as_columns, rates
from safecomm.evaluate.verdicts import ROWS
from safecomm.spec import REFERENCE_ARMS, Sweep
from safecomm.store import digest, write_json
from safecomm.sweep.arms import Trial
from safecomm.sweep.fine_tunes import TRAIN, fine_tune_of
from safecomm.sweep.stages import Stages

logger = logging.getLogger(__name__)
ORIGINAL = REFERENCE_ARMS[0]
Look = Callable[[float, Path], str]


class RunFolder:
    """Where one sweep keeps what belongs to it alone: `<storage>/<name>/`."""

    def __init__(self, sweep: Sweep):
        self.path = Path(sweep.storage).expanduser().resolve() / sweep.name
        # What a trial's result depends on; the rest may change from run to run, the labels too: they measure judges.
        parts = sweep.resolved()
        del parts["evaluate"]["labels"]
        self._context = digest({key: parts[key] for key in ("model", "finetune", "evaluate")})
        self._races = bool(sweep.search.racing)

    def record_path(self, trial: Trial) -> Path:
        """Returns the file of a trial's record."""
        return self.path / "trials" / f"{trial.arm}-{trial.id}-{trial.split}.json"

    def find(self, trial: Trial) -> Mapping[str, Any] | None:
        """Returns the record of a trial that is over under the same model, fine-tune and benchmarks.

        One that stopped early is over as long as the sweep races.
        """
        record = self.record(trial) or {}
        is_over = record.get("status") == "done" or (record.get("status") == "stopped" and self._races)
        return record if is_over and record["context"] == self._context else None

    def record(self, trial: Trial) -> Mapping[str, Any] | None:
        """Returns the record that a trial left, done or failed; None where there is none that can be read."""
        path = self.record_path(trial)
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            logger.warning("%s can't be read (%s); its trial counts as not done", path, error)
            return None
        return record if isinstance(record, dict) else None

    def check_fine_tune(self, trial: Trial) -> None:
        """Refuses a trial whose fine-tune failed in this run: each that shares it would train it in vain.

        Raises:
            TrainingError: with the fine-tune's own reason.
        """
        if trial.split == TRAIN or trial.arm == ORIGINAL:
            return
        record = self.record(fine_tune_of(trial)) or {}
        if record.get("status") == "failed" and record.get("context") == self._context:
            raise TrainingError(f"its fine-tune failed: {record['error']}")

    def keep(self, trial: Trial, record: Mapping[str, Any]) -> dict[str, Any]:
        """Writes a trial's record."""
        whole = {
            "trial": trial.id,
            "arm": trial.arm,
            "point": json.dumps(trial.point, sort_keys=True),
            "seed": trial.seed,
            "split": trial.split,
            "error": "",
            "context": self._context,
            **record,
        }
        write_json(self.record_path(trial), whole)
        return whole


def carry_out(
    trial: Trial,
    stages: Stages,
    callbacks: Sequence[Any] = (),
    rungs: Sequence[float] = (),
    look: Look = lambda share, evaluation: "",
) -> dict[str, Any]:
    """Carries out a trial and returns its record: rates with intervals, and the keys of the stages behind them.

    Args:
        trial: the trial.
        stages: the sweep's stages.
        callbacks: Ray Train's.
        rungs: shares of the split after which it may stop.
        look: is shown the rows of a rung and returns why to stop, empty to go on.
    """
    started = time.time()
    if trial.split == TRAIN:
        folders = stages.trained(trial, callbacks)
        return {"status": "done", "seconds": round(time.time() - started, 2), **_names(folders)}
    folders = {} if trial.arm == ORIGINAL else stages.adapter(trial.chain, trial.seed, callbacks)
    for share in [*rungs, 1.0]:
        evaluation, content = stages.evaluated(folders.get("adapter"), trial.split, share)
        if reason := look(share, evaluation) if share < 1 else "":
            break
    measured = rates(pd.read_parquet(evaluation / ROWS), stages.judges)
    return {
        "status": "stopped" if reason else "done",
        "reason": reason,
        "share": share,
        "data": "+".join(ref.name for ref in stages.sweep.finetune.data) or str(stages.sweep.finetune.adapter),
        "adapter": content,
        "adapter_path": str(folders.get("adapter", "")),
        **_names(folders),
        "evaluation": evaluation.name,
        "seconds": round(time.time() - started, 2),
        **as_columns(measured),
    }


def _names(folders: Mapping[str, Path]) -> dict[str, str]:
    return {stage: folders[stage].name if stage in folders else "" for stage in ("finetune", "profile")}


def failure(error: Exception) -> dict[str, Any]:
    """Returns the record of a trial that failed: one line for the table, the traceback for whoever looks deeper."""
    text = str(error).strip() or type(error).__name__
    if not isinstance(error, SafecommError):
        # What failed on a worker comes as text: its traceback, with the first cause first.
        causes = [line for line in text.splitlines() if re.match(r"[\w.]*(Error|Exception)\b: ", line)]
        text = causes[0] if causes else f"{type(error).__name__}: {text}"
    return {"status": "failed", "error": text.splitlines()[0], "traceback": "".join(traceback.format_exception(error))}
