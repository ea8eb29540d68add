"""Weights & Biases: one run per trial and one for the sweep, in one group, all written by the driver.

Offline unless the user is logged in or sets WANDB_MODE; `wandb sync` uploads an offline run later. Run ids are fixed by
the sweep and the trial, so that a sweep which goes on adds to its runs instead of making new ones.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import pandas as pd
import wandb
from ray.tune import Callback

from safecomm.evaluate.verdicts import ROWS
from safecomm.report.plots import trade_off
from safecomm.report.run import read_run
from safecomm.spec import Sweep
from safecomm.store import Store, digest
from safecomm.sweep.arms import Trial
from safecomm.sweep.driver import DriverOnly
from safecomm.sweep.trial import RunFolder

SAMPLES = 12
"""Responses that a trial's table shows."""


def wandb_mode() -> Literal["online", "offline", "disabled", "shared"]:
    """Returns what WANDB_MODE says, else `online` for a user who is logged in, else `offline`."""
    if mode := os.environ.get("WANDB_MODE"):
        return cast(Literal["online", "offline", "disabled", "shared"], mode)
    if os.environ.get("WANDB_API_KEY"):
        return "online"
    from requests.utils import get_netrc_auth

    return "online" if get_netrc_auth(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")) else "offline"


def open_run(sweep: Sweep, folder: RunFolder, name: str, job_type: str, config: Mapping[str, Any]) -> Any:
    """Opens, or goes on with, one W&B run of the sweep."""
    assert sweep.tracking.wandb is not None, "callers ask only where tracking is on"
    return wandb.init(
        project=sweep.tracking.wandb.project,
        entity=sweep.tracking.wandb.entity,
        group=sweep.name,
        name=name,
        id=digest([str(folder.path), name]),
        job_type=job_type,
        config=dict(config),
        dir=str(folder.path),
        mode=wandb_mode(),
        resume="allow",
        reinit="create_new",
        # No console, git remote or host statistics: they can hold secrets, and cost a process each.
        settings=wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True, x_disable_stats=True),
    )


class WandbTrials(DriverOnly, Callback):  # type: ignore[misc]
    """Writes every trial into a W&B run of its own."""

    def __init__(self, sweep: Sweep, folder: RunFolder):
        self._sweep = sweep
        self._folder = folder
        self._store = Store(Path(sweep.storage) / "store")
        self._runs: dict[str, Any] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Opens the trial's run with its configuration."""
        ours = Trial.of(trial.config["trial"])
        name = f"{ours.arm}-{ours.id}-{ours.split}"
        config = {"sweep": self._sweep.resolved(), **ours.as_config()}
        self._runs[trial.trial_id] = open_run(self._sweep, self._folder, name, "trial", config)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Logs the training curve as it comes, and the rates at the end."""
        run = self._runs[trial.trial_id]
        if "status" not in result:
            run.log({key: value for key, value in result.items() if key.startswith("train/")})
            return
        run.summary.update(
            {
                key: result[key]
                for key in ("status", "error", "finetune", "profile", "evaluation", "adapter")
                if key in result
            }
        )
        run.log({key: value for key, value in result.items() if _is_rate(key, result)})
        if result["status"] == "done":
            run.log({"samples": sample_table(self._store.folder("evaluation", result["evaluation"]))})
            if result["adapter_path"]:
                run.log_artifact(adapter_artifact(Path(result["adapter_path"]), result["adapter"]))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Closes the trial's run."""
        run = self._runs.pop(trial.trial_id)
        run.finish(exit_code=int((trial.last_result or {}).get("status") != "done"))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Closes the run of a trial whose process died."""
        self._runs.pop(trial.trial_id).finish(exit_code=1)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Closes the runs of an experiment that was interrupted."""
        for run in self._runs.values():
            run.finish(exit_code=1)
        self._runs.clear()


def tracking_callbacks(sweep: Sweep, folder: RunFolder) -> list[Callback]:
    """Returns the callbacks that a sweep's `tracking` section asks for."""
    return [WandbTrials(sweep, folder)] if sweep.tracking.wandb else []


def log_sweep(sweep: Sweep, folder: RunFolder) -> None:
    """Writes the sweep's own W&B run: the table of trials, the trade-off plot, the recommended point."""
    if not sweep.tracking.wandb:
        return
    trials = pd.read_parquet(folder.path / "trials.parquet")
    pareto = json.loads((folder.path / "pareto.json").read_text(encoding="utf-8"))
    with open_run(sweep, folder, "sweep", "sweep", sweep.resolved()) as run:
        run.log({"trials": wandb.Table(dataframe=trials), "tradeoff": wandb.Plotly(trade_off(read_run(folder.path)))})
        run.summary.update({"recommended": pareto["recommended"], "best": pareto["best"]})


def sample_table(evaluation: Path) -> Any:
    """Returns a few responses of every kind of benchmark, the same prompts for every trial."""
    rows = pd.read_parquet(evaluation / ROWS)
    shown = rows.sort_values("prompt_id").groupby("benchmark").head(SAMPLES // max(1, rows["benchmark"].nunique()))
    return wandb.Table(dataframe=shown[["benchmark", "category", "text", "response", "verdict"]])


def adapter_artifact(folder: Path, content: str) -> Any:
    """Returns the adapter as a W&B artifact named by its content, with the lineage as metadata."""
    lineage = json.loads((folder / "lineage.json").read_text(encoding="utf-8"))
    artifact = wandb.Artifact(f"adapter-{content}", type="model", metadata=lineage)
    for name in ("adapter_config.json", "adapter_model.safetensors", "lineage.json"):
        artifact.add_file(str(folder / name), policy="immutable", skip_cache=True)
    return artifact


def _is_rate(key: str, result: Mapping[str, Any]) -> bool:
    metrics = ("asr", "accuracy", "over_refusal")
    return key.startswith(metrics) and isinstance(result[key], int | float)
