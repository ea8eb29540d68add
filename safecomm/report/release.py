"""The adapter that a run would release: an arm's best point with one seed, and the measurements of that adapter."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from safecomm.errors import UsageError, suggestion
from safecomm.judging.coherence import with_coherence
from safecomm.judging.verdicts import read_rows
from safecomm.report.human_labels import with_labels
from safecomm.report.points import Point, rate_in, rows_of
from safecomm.report.run import SIMULATED, Headline, Run, headline, headline_row
from safecomm.spec import ORIGINAL, UNDEFENDED
from safecomm.statistics.metrics import Rate
from safecomm.storage.names import TRIALS


@dataclass(frozen=True)
class Release:
    """One adapter of a run and its report-split results."""

    run: Run
    row: Headline
    """Its point's row of the headline table, which pools all seeds."""
    trial: Point
    """The trial that measured this adapter."""

    @property
    def seed(self) -> int:
        """The seed of its fine-tune."""
        return int(self.trial["seed"])

    @property
    def rates(self) -> dict[str, Rate]:
        """This adapter's own rates, by metric; other seeds are no evidence for it."""
        return {metric: rate_in(self.trial, metric) for metric in self.run.metrics}

    @cached_property
    def answers(self) -> pd.DataFrame:
        """Its judged answers."""
        return answers_of(self.run, self.trial)

    def reference(self, arm: str) -> pd.DataFrame:
        """Returns the judged answers of a reference arm, or of another arm's best point, on the same prompts.

        Raises:
            UsageError: if the run has none.
        """
        trial = self.reference_trial(arm)
        if trial is None:
            split = self.trial["split"]
            raise UsageError(f"{self.run.folder}: has no arm {arm} on the {split} split to compare with")
        return answers_of(self.run, trial)

    def reference_trial(self, arm: str) -> Point | None:
        """Returns the trial of a reference arm, or of another arm's best point, on the same prompts; None without one.

        It is that of the same seed, if there is one.
        """
        point = "{}" if arm in (ORIGINAL, UNDEFENDED) else str(self.run.outcome["best"].get(arm, ""))
        trials = self.run.trials_of(arm, point, str(self.trial["split"]))
        found = rows_of(trials[trials["seed"] == self.seed]) or rows_of(trials)
        return found[0] if found else None


def released(run: Run, arm: str | None, seed: int, split: str = "report") -> Release:
    """Returns what would be released: an arm's best point or, without an arm, the recommended one.

    Args:
        run: the run.
        arm: the arm.
        seed: the seed of the fine-tune.
        split: the prompts of its measurements; `release` holds no rates, only answers.

    Raises:
        UsageError: if it was not measured on the split with that seed, or not really measured.
    """
    if run.is_simulated:
        raise UsageError(f"{run.folder}: {SIMULATED} Run the sweep with a real engine")
    rows = headline(run)
    wanted = [row for row in rows if (row.arm == arm if arm else row.recommended)]
    if not wanted:
        arms = ", ".join(row.arm for row in rows) or "none"
        what = f"arm {arm}{suggestion(arm, [row.arm for row in rows])}" if arm else "recommended point"
        raise UsageError(f"{run.folder}: has no {what} on the report split; its arms there: {arms}")
    trials = run.trials_of(wanted[0].arm, wanted[0].point, split)
    found = rows_of(trials[trials["seed"] == seed])
    if not found:
        if trials.empty:
            raise UsageError(
                f"{run.folder}: {wanted[0].arm} was not measured on the {split} split; run the sweep again"
            )
        seeds = ", ".join(map(str, trials["seed"]))
        raise UsageError(
            f"{run.folder}: {wanted[0].arm} was not measured with seed {seed}; use one of its seeds: {seeds}"
        )
    return Release(run, wanted[0], found[0])


def searched(run: Run, trial: str) -> Release:
    """Returns the adapter of any finished trial of the search, with its rates on the search split.

    Args:
        run: the run.
        trial: the trial's id.

    Raises:
        UsageError: if there is no such trial.
    """
    if run.is_simulated:
        raise UsageError(f"{run.folder}: {SIMULATED} Run the sweep with a real engine")
    trials = run.trials[(run.trials["split"] == "search") & (run.trials["status"] == "done")]
    found = rows_of(trials[trials["trial"] == trial])
    row = headline_row(run, found[0]["arm"], found[0]["point"], "search") if found else None
    if row is None:
        hint = suggestion(trial, list(trials["trial"])) or f"; {run.folder / TRIALS} lists them"
        raise UsageError(f"--point: the search of {run.folder} has no finished trial {trial!r:.80}{hint}")
    return Release(run, row, found[0])


def answers_of(run: Run, trial: Mapping[str, object]) -> pd.DataFrame:
    """Returns a trial's judged answers, with the human labels of those that have one (see `with_labels`).

    The answers to open prompts follow once more as rows of `INCOHERENCE` (see `with_coherence`).

    Raises:
        UsageError: if they are gone from the store.
    """
    folder = run.stage("evaluation", str(trial["evaluation"]))
    try:
        rows = read_rows(folder)
    except OSError as error:
        raise UsageError(
            f"{folder}: the answers of {trial['arm']} are gone from the store; run the sweep again to make them again"
        ) from error
    return with_labels(with_coherence(rows), str(trial["evaluation"]), run.labels.drawn)
