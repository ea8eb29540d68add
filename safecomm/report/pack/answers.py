"""The judged answers in an evidence pack: those of the exported arm and of the reference arms, on the report split."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from safecomm.report.points import Point
from safecomm.report.release import Release, answers_of
from safecomm.spec import REFERENCE_ARMS
from safecomm.statistics.metric_table import INCOHERENCE
from safecomm.storage.names import ROWS

NOT_NEEDED = ["question_id"]


@dataclass(frozen=True)
class ArmAnswers:
    """One arm's judged answers."""

    arm: str
    settings: dict[str, Any]
    trial: Point
    rows: pd.DataFrame
    """A row per request, with all its columns as in the store, and human labels where there are some."""
    answered: datetime
    """When the answers were stored."""


def arms_of(release: Release) -> list[ArmAnswers]:
    """Returns the answers of the exported arm and then of the reference arms that were measured on its split.

    Raises:
        UsageError: if some are gone from the store.
    """
    others = [found for arm in REFERENCE_ARMS if arm != release.row.arm and (found := release.reference_trial(arm))]
    return [_answers(release, release.trial), *(_answers(release, trial) for trial in others)]


def sample_table(arms: list[ArmAnswers]) -> pd.DataFrame:
    """Returns all answers as one table; the arm and its seed come first."""
    return pd.concat([_table(one) for one in arms], ignore_index=True)


def _table(arm: ArmAnswers) -> pd.DataFrame:
    rows = arm.rows.drop(columns=NOT_NEEDED, errors="ignore").rename(columns={"text": "prompt"})
    rows.insert(0, "arm", arm.arm)
    rows.insert(1, "seed", int(arm.trial["seed"]))
    return rows


def _answers(release: Release, trial: Point) -> ArmAnswers:
    rows = answers_of(release.run, trial)
    stored = release.run.stage("evaluation", str(trial["evaluation"])) / ROWS
    own = trial["arm"] == release.row.arm
    return ArmAnswers(
        arm=str(trial["arm"]),
        settings=release.row.settings if own else {},
        trial=trial,
        rows=rows[rows["kind"] != INCOHERENCE.kind].reset_index(drop=True),
        answered=datetime.fromtimestamp(stored.stat().st_mtime, UTC),
    )


def by_benchmark(arm: ArmAnswers) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yields benchmark and answers."""
    for name, rows in arm.rows.groupby("benchmark"):
        yield str(name), rows
