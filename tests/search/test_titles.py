"""Trials have short titles, whatever the types of their settings."""

from dataclasses import replace
from pathlib import Path

import pytest

from safecomm.search.arms import Trial
from safecomm.search.equivalence import EquivalentPoints
from safecomm.search.fine_tunes import fine_tunes
from safecomm.search.profile_cache import ProfileCache
from safecomm.spec import read_sweep

SWEEPS = sorted((Path(__file__).parents[2] / "sweeps").glob("*.yaml"))


def test_title_has_the_settings_the_seed_and_the_further_training() -> None:
    point = {"a.weight": 0.123456, "a.lowest": 28, "a.preview": "true"}
    assert Trial("arm", point, (), 0).title == "arm weight=0.1235 lowest=28 preview=true"
    assert Trial("arm", {}, (), 2).title == "arm seed 2"
    further = Trial("arm", {}, (), 0, "tamper", tamper="harmful", steps=5)
    assert further.title == "arm trained further on tamper.harmful for 5 steps"
    further = replace(further, learning_rate=1e-3)
    assert further.title == "arm trained further on tamper.harmful with a learning rate of 0.001 for 5 steps"


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_fine_tune_of_the_bundled_sweeps_has_a_title(path: Path, tmp_path: Path) -> None:
    sweep = read_sweep(path, [f"storage={tmp_path}"])
    trials = fine_tunes(sweep, EquivalentPoints(sweep, ProfileCache(sweep)))
    assert all(trial.title.startswith(trial.arm) for trial in trials)
