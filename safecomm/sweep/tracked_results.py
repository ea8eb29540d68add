"""The W&B run of a whole sweep, which can be read without the report."""

import html
from pathlib import Path
from typing import Any

import pandas as pd
import wandb

from safecomm.report.best_of_n import try_tables
from safecomm.report.drift import generations
from safecomm.report.figures import figures
from safecomm.report.guide import guide
from safecomm.report.incoherence import incoherence_of
from safecomm.report.modules import read_profile
from safecomm.report.run import Run, headline, in_words, rate_in_words, read_run
from safecomm.report.tampering import tamper_curves
from safecomm.search.run_folder import RunFolder
from safecomm.spec import Sweep
from safecomm.statistics.metric_table import INCOHERENCE
from safecomm.storage.names import ROWS, TRIALS
from safecomm.sweep.tracking import TrackedRun, sample_table


def log_sweep(sweep: Sweep, folder: RunFolder) -> None:
    """Writes the sweep's W&B run: arms with their rates, the report's figures, the guide, and the table of trials."""
    if not sweep.tracking.wandb:
        return
    run = TrackedRun(sweep, folder, "sweep", "sweep", sweep.resolved())
    run.do(lambda run: _log_results(run, folder.path))
    run.finish(0)


def _log_results(run: Any, folder: Path) -> None:
    trials = pd.read_parquet(folder / TRIALS)
    found = read_run(folder)
    run.summary.update({name: found.outcome[name] for name in ("recommended", "best")})
    run.log({"trials": wandb.Table(dataframe=trials)})
    if (samples := samples_table(found)) is not None:
        run.log({"samples": samples})
    run.log({"arms": arms_table(found), "guide": wandb.Html(guide_page(found), inject=False)})
    drawn = figures(found, read_profile(found), try_tables(found), tamper_curves(found), generations(found))
    run.log({name: wandb.Plotly(figure) for name, figure in drawn.items()})


def samples_table(run: Run) -> Any:
    """Returns a few answers of the recommended adapter on the report split; None without any in the store."""
    recommended = next((row for row in headline(run) if row.recommended), None)
    if recommended is None:
        return None
    trials = run.trials_of(recommended.arm, recommended.point, "report")
    evaluation = run.stage("evaluation", str(trials["evaluation"].iloc[0])) if len(trials) else None
    if evaluation is None or not (evaluation / ROWS).is_file():
        return None
    return sample_table(evaluation, bool(((run.sweep.get("tracking") or {}).get("wandb") or {}).get("reveal")))


def arms_table(run: Run) -> Any:
    """Returns the headline table: every arm's settings, and its rates on the report split with intervals and n."""
    rows = [
        [row.arm, in_words(row.settings), row.recommended, row.meets_target]
        + [rate_in_words(row.rates[metric]) for metric in run.metrics]
        + [rate_in_words(incoherence_of(row.pooled))]
        for row in headline(run)
    ]
    titles = [run.titles[metric] for metric in run.metrics]
    return wandb.Table(
        columns=["arm", "settings", "recommended", "meets target", *titles, INCOHERENCE.title], data=rows
    )


def guide_page(run: Run) -> str:
    """Returns the guide as a piece of HTML."""
    parts = [
        f"<h3>{html.escape(part.question)}</h3>"
        + "".join(f"<p>{html.escape(sentence)}</p>" for sentence in part.sentences)
        for part in guide(run)
    ]
    return "".join(parts)
