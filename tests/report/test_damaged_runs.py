"""A damaged run folder is one message that names the file; nothing else is raised."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from safecomm.errors import UsageError
from safecomm.report.run import headline, read_run

NASTY: list[Any] = [None, True, -1, "x", [], {}, [None], {"a": None}, "[/bold]", 10**30]


@pytest.fixture
def run(run_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run_folder, tmp_path / "small"))


def read(run: Path) -> None:
    try:
        headline(read_run(run))
    except UsageError as error:
        assert str(run) in str(error) and "\n" not in str(error)


def test_damaged_sweeps_are_read_or_refused(run: Path) -> None:
    rng, text = random.Random(0), (run / "sweep.json").read_text()
    for at in range(150):
        raw = json.loads(text)
        section = rng.choice([raw, *(part for part in raw.values() if isinstance(part, dict) and part)])
        key = rng.choice(list(section))
        if at % 3:
            section[key] = rng.choice(NASTY)
        else:
            del section[key]
        (run / "sweep.json").write_text(json.dumps(raw))
        read(run)
    for half in ("", "{", text[: len(text) // 2], "[]", "1", "[" * 100_000):
        (run / "sweep.json").write_text(half)
        with pytest.raises(UsageError, match=r"sweep\.json"):
            read_run(run)


def test_damaged_trials_are_read_or_refused(run: Path) -> None:
    rng, trials = random.Random(0), pd.read_parquet(run / "trials.parquet")
    for at in range(150):
        column = rng.choice(list(trials))
        damaged = [
            trials.drop(columns=column),
            trials.assign(**{column: rng.choice([None, 1.5, "x", "[1]", np.nan, "{}"])}),
            trials.iloc[: rng.randrange(len(trials))],
        ][at % 3]
        damaged.to_parquet(run / "trials.parquet")
        read(run)
    whole = (run / "trials.parquet").read_bytes()
    for half in (b"", b"PAR1", whole[: len(whole) // 2], whole[:-4] + b"xxxx"):
        (run / "trials.parquet").write_bytes(half)
        with pytest.raises(UsageError, match=r"trials\.parquet: can't be read"):
            read_run(run)


@pytest.mark.parametrize("content", ["", "[]", '{"judges": 1}', '{"judges": {"a": {"sensitivity": 1}}}', "{}"])
def test_damaged_judges_are_refused(labelled_run: Path, content: str, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(labelled_run, tmp_path / "run"))
    (copy / "judges.json").write_text(content)
    with pytest.raises(UsageError, match=r"judges\.json"):
        read_run(copy)
