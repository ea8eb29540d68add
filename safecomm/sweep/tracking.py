"""Weights & Biases tracking: one run per trial and one for the sweep, in one group, all written by the driver.

Tracking is offline unless the user is logged in or sets WANDB_MODE; `wandb sync` uploads offline runs later. Run ids
are derived from the sweep and the trial, so a resumed sweep continues its runs. Tracking errors never fail the sweep.
"""

import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import pandas as pd
import wandb
from ray.tune import Callback

from safecomm.data.catalog.describe import SHOWN
from safecomm.judging.verdicts import read_rows
from safecomm.report.samples import response_in
from safecomm.search.arms import RELEASE, Trial
from safecomm.search.fine_tunes import TRAIN
from safecomm.search.record import TrialRecord
from safecomm.search.run_folder import RunFolder
from safecomm.spec import Sweep
from safecomm.statistics.metric_table import ASR
from safecomm.statistics.metrics import as_columns
from safecomm.storage import shared
from safecomm.storage.names import ADAPTER_CONFIG, ADAPTER_WEIGHTS, LINEAGE
from safecomm.storage.store import Store, digest, local_copy
from safecomm.sweep.driver import DriverOnly

logger = logging.getLogger(__name__)

Mode = Literal["online", "offline", "disabled", "shared"]
SAMPLES = 12
"""Responses in a trial's table."""
JOB_TYPES = {TRAIN: "finetune"}
"""Split -> the job type of a trial's run; by default the split's name."""
MOST_IN_A_NAME = 128
"""W&B's limit on the characters of a name."""
INIT_SECONDS = 20.0
"""Timeout for opening a run, after which tracking switches to offline."""
FINISH_SECONDS = 120.0
"""Timeout for a run's last uploads; the data also stays on disk."""


def wandb_mode() -> Mode:
    """Returns WANDB_MODE if set, otherwise `online` if the user is logged in, otherwise `offline`."""
    if mode := os.environ.get("WANDB_MODE"):
        return cast(Mode, mode)
    return "online" if _api_key() else "offline"


class TrackedRun:
    """A new or resumed W&B run; its errors never reach the sweep.

    If a run can't be opened online, it and all later runs of this process are opened offline. If that fails too, e.g.
    on a full disk, tracking is disabled. Each of these logs one warning.
    """

    def __init__(
        self, sweep: Sweep, folder: RunFolder, key: str, job_type: str, config: Mapping[str, Any], title: str = ""
    ):
        """Opens the run.

        Args:
            sweep: the sweep.
            folder: its run folder.
            key: the run's name within the sweep, the same when the sweep is resumed.
            job_type: what the run does.
            config: its configuration.
            title: the name to show, instead of the key.
        """
        assert sweep.tracking.wandb is not None, "callers check that tracking is enabled"
        settings = {
            "project": sweep.tracking.wandb.project,
            "entity": sweep.tracking.wandb.entity,
            "group": sweep.name,
            "name": (title or key)[:MOST_IN_A_NAME],
            "id": digest([shared.address(folder.path), key]),
            "job_type": job_type,
            "config": dict(config),
            "dir": str(folder.path),
        }
        self._run, self._mode = _opened(settings)

    def do(self, action: Callable[[Any], object]) -> None:
        """Calls `action` with the W&B run, unless the run has failed or tracking is disabled."""
        if self._mode == "disabled" or wandb_mode() == "disabled":
            return
        try:
            action(self._run)
        except Exception as error:  # W&B raises many types, and none must fail the sweep
            self._give_up(error)

    def finish(self, exit_code: int) -> None:
        """Closes the run, even if tracking was disabled in the meantime."""
        try:
            self._run.finish(exit_code=exit_code)
        except Exception as error:  # as above; data that was not uploaded is on disk
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        _fall_back(self._mode, error)
        self._mode = "disabled"


def _opened(settings: Mapping[str, Any]) -> tuple[Any, Mode]:
    while (mode := wandb_mode()) != "disabled":
        try:
            return _init(settings, mode), mode
        except Exception as error:  # no network, wrong key, unknown entity, full disk, W&B's own errors
            _fall_back(mode, error)
            # W&B's service considers the id in use even if it failed to open the run.
            settings = {**settings, "id": f"{settings['id']}-offline"}
    return _init(settings, mode), mode


def _init(settings: Mapping[str, Any], mode: Mode) -> Any:
    return wandb.init(
        **settings,
        mode=mode,
        resume="allow",
        reinit="create_new",
        settings=wandb.Settings(
            # No console, git or system metrics: they may contain secrets and need a process each.
            **{"console": "off", "silent": True, "disable_git": True, "disable_code": True, "x_disable_stats": True},
            init_timeout=INIT_SECONDS,
            finish_timeout=FINISH_SECONDS,
            finish_timeout_raises=True,
        ),
    )


def _fall_back(failed: Mode, error: Exception) -> None:
    """Switches this process to a less demanding mode after a failure; warns the first time."""
    if failed == "disabled" or wandb_mode() != failed:  # already switched
        return
    mode, outcome = (
        ("disabled", "is disabled")
        if failed == "offline"
        else ("offline", "continues offline; upload later with `wandb sync`")
    )
    cause = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if key := _api_key():
        cause = cause.replace(key, "***")
    logger.warning("W&B failed (%s); tracking %s; the sweep is not affected", cause, outcome)
    os.environ["WANDB_MODE"] = mode


def _api_key() -> str | None:
    """Returns the API key from the environment or from `wandb login`."""
    from requests.utils import get_netrc_auth

    if key := os.environ.get("WANDB_API_KEY"):
        return key
    login = get_netrc_auth(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
    return login[1] if login else None


class WandbTrials(DriverOnly, Callback):  # type: ignore[misc]
    """Logs every trial to its own W&B run."""

    def __init__(self, sweep: Sweep, folder: RunFolder):
        self._sweep = sweep
        self._folder = folder
        self._store = Store.of(sweep.storage)
        self._reveal = sweep.tracking.wandb is not None and sweep.tracking.wandb.reveal
        self._runs: dict[str, TrackedRun] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Opens the trial's run with its configuration, unless this is a retry and the run is open."""
        if trial.trial_id in self._runs:
            return
        ours = Trial.of(trial.config["trial"])
        key, job_type = f"{ours.arm}-{ours.id}-{ours.split}", JOB_TYPES.get(ours.split, ours.split)
        config = {"sweep": self._sweep.resolved(), **ours.as_config()}
        title = f"{ours.title} ({job_type})"
        run = self._runs[trial.trial_id] = TrackedRun(self._sweep, self._folder, key, job_type, config, title)
        run.do(lambda run: run.define_metric("train/*", step_metric="train/step"))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Logs training metrics as they arrive, and the rates at the end."""
        run = self._runs[trial.trial_id]
        if "status" in result:
            run.do(lambda run: self._log_outcome(run, result))
        else:
            run.do(lambda run: run.log({key: value for key, value in result.items() if key.startswith("train/")}))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Closes the trial's run."""
        self._runs.pop(trial.trial_id).finish(int((trial.last_result or {}).get("status", "failed") == "failed"))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Closes the run of a trial whose process died; there is none if it died before the trial started."""
        if run := self._runs.pop(trial.trial_id, None):
            run.finish(1)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Closes the open runs of an interrupted experiment."""
        for run in self._runs.values():
            run.finish(1)
        self._runs.clear()

    def _log_outcome(self, run: Any, result: Mapping[str, Any]) -> None:
        record = TrialRecord.from_json(result)
        shown = ("status", "reason", "error", "finetune", "profile", "evaluation", "adapter")
        run.summary.update({key: value for key, value in record.to_json().items() if key in shown})
        rates = as_columns(record.rates)
        run.log(rates)
        run.summary.update(rates)
        if record.status == "done" and record.evaluation and record.split != RELEASE:  # fine-tunes have none
            evaluation = local_copy(self._store.folder("evaluation", record.evaluation))
            run.log({"samples": sample_table(evaluation, self._reveal)})
            released = not record.tamper and not record.generation  # the weights of the others stay here
            if record.adapter and record.adapter_path and released:
                run.log_artifact(adapter_artifact(local_copy(Path(record.adapter_path)), record.adapter))


def tracking_callbacks(sweep: Sweep, folder: RunFolder) -> list[Callback]:
    """Returns the callbacks for a sweep's `tracking` section."""
    return [WandbTrials(sweep, folder)] if sweep.tracking.wandb else []


def sample_table(evaluation: Path, reveal: bool) -> Any:
    """Returns a few responses per benchmark; the prompts are the same for every trial.

    Args:
        evaluation: the folder of the judged rows.
        reveal: whether harmful prompts, and the answers to them, are shown in full.
    """
    return wandb.Table(dataframe=sample_rows(read_rows(evaluation), reveal))


def sample_rows(rows: pd.DataFrame, reveal: bool) -> pd.DataFrame:
    """Returns the rows of `sample_table`."""
    shown = rows.sort_values("prompt_id").groupby("benchmark").head(SAMPLES // max(1, rows["benchmark"].nunique()))
    shown = shown.assign(response=[response_in(row) for row in shown.to_dict("records")])  # type: ignore[arg-type]
    if not reveal:
        harmful = shown["kind"] == ASR.kind
        for column in ("text", "response"):
            shown[column] = shown[column].mask(harmful, shown[column].str.slice(0, SHOWN) + "...")
    return shown[["benchmark", "category", "text", "response", "verdict"]]


def adapter_artifact(folder: Path, content: str) -> Any:
    """Returns the adapter as a W&B artifact named by its content hash, with its lineage as metadata."""
    lineage = json.loads((folder / LINEAGE).read_text(encoding="utf-8"))
    artifact = wandb.Artifact(f"adapter-{content}", type="model", metadata=lineage)
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS, LINEAGE):
        artifact.add_file(str(folder / name), policy="immutable", skip_cache=True)
    return artifact
