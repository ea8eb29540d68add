"""An arm's study proposes the same settings however often it is interrupted, and uses the result of each proposal."""

from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from small_sweep import LEAST

from safecomm.defenses.space import Choice, Exact, Grid, LogUniform, RandInt, Uniform
from safecomm.search.study import ArmStudy, distribution, objectives
from safecomm.spec import Sweep
from safecomm.spec.search import Search

MERGE = {"safe_merge": {"lowest": {"randint": [1, 28]}, "weight": {"uniform": [0.5, 0.9]}}}


def study(journal: Path, **search: Any) -> ArmStudy:
    sweep = Sweep.model_validate(LEAST | {"arms": {"merged": [MERGE]}, "search": {"trials": 9, **search}})
    return ArmStudy("merged", sweep, journal)


def proposed(study: ArmStudy, start: int, count: int) -> list[dict[str, Any]]:
    return [trial.params for trial in study.proposals(start, count)]


def tell(study: ArmStudy, start: int, count: int) -> None:
    for trial in study.proposals(start, count):
        study.tell(trial.number, [trial.params["safe_merge.weight"], 0.5, 0.1])


def test_an_interrupted_study_makes_the_same_proposals_as_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = study(tmp_path / "whole")
    tell(whole, 0, 4)
    expected = [*proposed(whole, 0, 4), *proposed(whole, 4, 3)]

    first = study(tmp_path / "stopped")
    begun = proposed(first, 0, 4)
    again = study(tmp_path / "stopped")
    assert proposed(again, 0, 4) == begun
    tell(again, 0, 4)
    assert [*begun, *proposed(study(tmp_path / "stopped"), 4, 3)] == expected


def test_initial_points_come_first(tmp_path: Path) -> None:
    begin = {"safe_merge.lowest": 7, "safe_merge.weight": 0.6}
    assert proposed(study(tmp_path / "journal", arms={"merged": {"points": [begin]}}), 0, 2)[0] == begin


def test_a_result_is_reported_once_and_failed_proposals_are_ignored(tmp_path: Path) -> None:
    made = study(tmp_path / "journal")
    good, bad = made.proposals(0, 2)
    made.tell(good.number, [0.1, 0.5, 0.1])
    made.tell(good.number, [0.9, 0.1, 0.9])
    made.tell(bad.number, None)
    (known,) = made.proposals(0, 1)
    assert (known.number, known.values, known.state) == (good.number, [0.1, 0.5, 0.1], TrialState.COMPLETE)
    assert made.proposals(1, 1)[0].number not in (good.number, bad.number)


def test_a_study_ends_after_four_proposals_for_each_point_of_its_budget(tmp_path: Path) -> None:
    made = study(tmp_path / "journal", batch=2)
    assert (made.budget, made.most, made.first_batch, made.later_batches) == (9, 36, 3, 2)


@pytest.mark.parametrize(("trials", "first", "later"), [(6, 4, 4), (24, 8, 4), (240, 80, 30)])
def test_large_searches_propose_more_at_a_time(trials: int, first: int, later: int) -> None:
    search = Search(trials=trials)
    assert (search.first_batch_of("x"), search.batch_of("x")) == (first, later)
    assert Search(trials=trials, batch=2).batch_of("x") == 2


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (Grid(grid=[1, 2]), CategoricalDistribution([1, 2])),
        (Choice(choice=[0.5, 0.7]), CategoricalDistribution([0.5, 0.7])),
        (Uniform(uniform=(0.1, 0.9)), FloatDistribution(0.1, 0.9)),
        (LogUniform(loguniform=(1e-4, 1e-2)), FloatDistribution(1e-4, 1e-2, log=True)),
        (RandInt(randint=(1, 28)), IntDistribution(1, 28)),
        (Exact(exact=12), FloatDistribution(0, 1)),
    ],
)
def test_every_space_has_an_optuna_distribution(space: Any, expected: object) -> None:
    assert distribution(space) == expected


def test_over_refusal_is_not_an_objective_without_benchmarks_for_it() -> None:
    evaluate = {"red_team": ["lab-harm"], "task": ["lab-telecom"]}
    assert "over_refusal" in objectives(Sweep.model_validate(LEAST | {"arms": {}}))
    assert "over_refusal" not in objectives(Sweep.model_validate(LEAST | {"arms": {}, "evaluate": evaluate}))
