"""Runs one trial, from data to rates, and creates its record."""

import re
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from safecomm.errors import SafecommError, UnansweredError
from safecomm.judging.coherence import with_coherence
from safecomm.judging.verdicts import read_rows
from safecomm.search.arms import RELEASE, Trial
from safecomm.search.fine_tunes import TRAIN
from safecomm.search.record import TrialRecord
from safecomm.serving.stream import Count, uncounted
from safecomm.spec import ORIGINAL
from safecomm.statistics.metrics import rates
from safecomm.sweep.stages import StageFolders, Stages

Look = Callable[[float, Path], str]


def carry_out(
    trial: Trial,
    stages: Stages,
    rungs: Sequence[float] = (),
    look: Look = lambda share, evaluation: "",
    count: Count = uncounted,
) -> TrialRecord:
    """Runs a trial and returns its record: rates with intervals, and the store keys of its stages.

    On the release split it returns no rates, so that nobody sees them before the gate.

    Args:
        trial: the trial.
        stages: the sweep's stages.
        rungs: shares of the split after which the trial may stop early.
        look: called after each rung with its share and evaluation folder; returns a reason to stop, or an empty string.
        count: called with the number of answers so far, of questions, and of tokens.
    """
    started = time.time()
    if trial.split == TRAIN and not trial.tamper:
        keys = _stage_keys(stages.trained(trial))
        return TrialRecord.of(trial, "done", seconds=round(time.time() - started, 2), **keys)
    folders = None if trial.arm == ORIGINAL else stages.adapter(trial.chain, trial.seed)
    adapter = folders.adapter if folders else None
    if adapter and trial.tamper:
        further = stages.training.tampered(adapter, trial.tamper, trial.seed, trial.learning_rate)
        if trial.split == TRAIN:
            return TrialRecord.of(trial, "done", seconds=round(time.time() - started, 2), finetune=further.name)
        adapter = further / str(trial.steps)
    for share in [*rungs, 1.0]:
        evaluation, content = stages.evaluated(adapter, trial.split, share, count)
        if reason := look(share, evaluation) if share < 1 else "":
            break
    return TrialRecord.of(
        trial,
        "stopped" if reason else "done",
        reason=reason,
        share=share,
        compared_seeds=stages.sweep.seeds if reason and stages.sweep.seeds > 1 else None,
        data="+".join(ref.name for ref in stages.sweep.finetune.data) or str(stages.sweep.finetune.adapter),
        adapter=content,
        adapter_path=str(adapter or ""),
        **_stage_keys(folders),
        evaluation=evaluation.name,
        seconds=round(time.time() - started, 2),
        rates={} if trial.split == RELEASE else rates(with_coherence(read_rows(evaluation)), stages.judges),
    )


def _stage_keys(folders: StageFolders | None) -> dict[str, str]:
    by_stage = {"finetune": folders and folders.finetune, "profile": folders and folders.profile}
    return {stage: folder.name if folder else "" for stage, folder in by_stage.items()}


def is_lost(error: Exception) -> bool:
    """Returns whether a process, node or server that the trial needed died, in which case a retry can succeed."""
    from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RayActorError, WorkerCrashedError

    died = NodeDiedError | ObjectLostError | OutOfMemoryError | RayActorError | WorkerCrashedError
    return isinstance(error, died | UnansweredError)


def failure(trial: Trial, error: Exception) -> TrialRecord:
    """Returns the record of a failed trial: a one-line error for the table, and the full traceback."""
    text = str(error).strip() or type(error).__name__
    if not isinstance(error, SafecommError):
        # An error from a worker contains its traceback as text; the first cause comes first.
        causes = [line for line in text.splitlines() if re.match(r"[\w.]*(Error|Exception)\b: ", line)]
        text = causes[0] if causes else f"{type(error).__name__}: {text}"
    details = "".join(traceback.format_exception(error))
    return TrialRecord.of(trial, "failed", error=text.splitlines()[0], traceback=details)
