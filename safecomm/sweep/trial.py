"""One trial: the chain from data to rates, and the record that it leaves."""

import re
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from safecomm.errors import SafecommError, UnansweredError
from safecomm.judging.verdicts import read_rows
from safecomm.search.arms import Trial
from safecomm.search.fine_tunes import TRAIN
from safecomm.search.record import TrialRecord
from safecomm.spec import ORIGINAL
from safecomm.statistics.metrics import rates
from safecomm.sweep.stages import StageFolders, Stages

Look = Callable[[float, Path], str]


def carry_out(
    trial: Trial,
    stages: Stages,
    rungs: Sequence[float] = (),
    look: Look = lambda share, evaluation: "",
) -> TrialRecord:
    """Carries out a trial and returns its record: rates with intervals, and the keys of the stages behind them.

    Args:
        trial: the trial.
        stages: the sweep's stages.
        rungs: shares of the split after which it may stop.
        look: is shown the rows of a rung and returns why to stop, empty to go on.
    """
    started = time.time()
    if trial.split == TRAIN:
        names = _names(stages.trained(trial))
        return TrialRecord.of(trial, "done", seconds=round(time.time() - started, 2), **names)
    made = None if trial.arm == ORIGINAL else stages.adapter(trial.chain, trial.seed)
    adapter = made.adapter if made else None
    for share in [*rungs, 1.0]:
        evaluation, content = stages.evaluated(adapter, trial.split, share)
        if reason := look(share, evaluation) if share < 1 else "":
            break
    return TrialRecord.of(
        trial,
        "stopped" if reason else "done",
        reason=reason,
        share=share,
        data="+".join(ref.name for ref in stages.sweep.finetune.data) or str(stages.sweep.finetune.adapter),
        adapter=content,
        adapter_path=str(adapter or ""),
        **_names(made),
        evaluation=evaluation.name,
        seconds=round(time.time() - started, 2),
        rates=rates(read_rows(evaluation), stages.judges),
    )


def _names(made: StageFolders | None) -> dict[str, str]:
    folders = {"finetune": made and made.finetune, "profile": made and made.profile}
    return {stage: folder.name if folder else "" for stage, folder in folders.items()}


def is_lost(error: Exception) -> bool:
    """Says whether a process, node or server that the trial needed went away, so that another try may succeed."""
    from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError, WorkerCrashedError

    return isinstance(error, NodeDiedError | ObjectLostError | RayActorError | WorkerCrashedError | UnansweredError)


def failure(trial: Trial, error: Exception) -> TrialRecord:
    """Returns the record of a trial that failed: one line for the table, the traceback for whoever looks deeper."""
    text = str(error).strip() or type(error).__name__
    if not isinstance(error, SafecommError):
        # What failed on a worker comes as text: its traceback, with the first cause first.
        causes = [line for line in text.splitlines() if re.match(r"[\w.]*(Error|Exception)\b: ", line)]
        text = causes[0] if causes else f"{type(error).__name__}: {text}"
    details = "".join(traceback.format_exception(error))
    return TrialRecord.of(trial, "failed", error=text.splitlines()[0], traceback=details)
