"""Each phase of a sweep gets the GPUs that it can use: training all of them, and then the engines."""

from pathlib import Path

import pytest

from safecomm.cluster.session import Resources
from safecomm.plan.placement import TRIALS_PER_REPLICA, Placement, PlacementError, place
from safecomm.plan.plan import make_plan
from safecomm.search.equivalence import EquivalentPoints
from safecomm.search.profile_cache import ProfileCache
from safecomm.spec import read_sweep

SWEEPS = Path(__file__).parents[2] / "sweeps"
LARGEST = SWEEPS / "llama-3.1-70b.yaml"


def placed(path: Path, nodes: list[int], *overrides: str) -> Placement:
    sweep = read_sweep(path, list(overrides))
    resources = Resources(cpus=64, gpus=sum(nodes), node_gpus=nodes)
    return place(sweep, resources, EquivalentPoints(sweep, ProfileCache(sweep)), trials=1000, reported=1000)


def in_use(placement: Placement) -> list[int]:
    return [phase.gpus_in_use for phase in placement.phases]


def test_search_trials_are_limited_by_engines_and_not_by_the_gpus_of_fine_tunes() -> None:
    train, search, report = placed(LARGEST, [8]).phases
    assert train.trials_at_a_time == 1
    assert search.trials_at_a_time == report.trials_at_a_time == TRIALS_PER_REPLICA


@pytest.mark.parametrize(
    ("nodes", "replicas"),
    [([8], (1, 4)), ([8, 8], (3, 4)), ([4, 4, 4], (2, 4)), ([8] * 8, (15, 4)), ([6, 6], (2, 4))],
)
def test_after_the_training_the_engines_fill_the_nodes_without_straddling_them(
    nodes: list[int], replicas: tuple[int, int]
) -> None:
    placement = placed(LARGEST, nodes)
    assert (placement.target_replicas, placement.judge_replicas) == replicas
    assert in_use(placement)[1:] == [sum(nodes)] * 2


def test_an_engine_that_fits_on_no_node_is_refused_before_ray_waits_for_it() -> None:
    for nodes in ([4] * 8, [4, 4, 4]):
        with pytest.raises(PlacementError, match=r"cluster.target.tensor_parallel: .* the largest node has 4"):
            placed(LARGEST, nodes, "cluster.target.tensor_parallel=8")
    straddling = ["cluster.target.tensor_parallel=4", "cluster.target.pipeline_parallel=2"]
    assert placed(LARGEST, [4] * 8, *straddling).target_replicas == 3


def test_engines_that_the_sweep_puts_on_labelled_nodes_stay_as_many_as_it_says() -> None:
    placement = placed(LARGEST, [8, 8], "cluster.target.labels={pool: fleet}")
    assert (placement.target_replicas, placement.judge_replicas, placement.fleet_gpus) == (1, 1, 5)


def test_the_plan_promises_no_more_trials_at_a_time_than_a_sampler_proposes() -> None:
    sampled = "arms={safe_merge: [{safe_merge: {threshold: {uniform: [0.3, 0.9]}, weight: {uniform: [0.5, 0.9]}}}]}"
    sweep = read_sweep(LARGEST, [sampled, "search={trials: 24}", "seeds=1", "paper=null"])
    plan = make_plan(sweep, Resources(cpus=64, gpus=64), EquivalentPoints(sweep, ProfileCache(sweep)), fetch=False)
    assert plan.trials == 26 and plan.trials_at_a_time("search") == 2 + 8


def test_a_sweep_in_one_phase_keeps_its_engines_and_trains_beside_them() -> None:
    placement = placed(LARGEST, [8, 8], "cluster.phased=false")
    assert in_use(placement) == [5 + 8, 5, 5]


def test_a_search_that_trains_runs_no_more_trials_than_fit_beside_the_engines() -> None:
    ratio = "arms.safe_instruct.0.safe_instruct.ratio={uniform: [0.01, 0.1]}"
    placement = placed(LARGEST, [8] * 3, ratio)
    assert [phase.trials_at_a_time for phase in placement.phases] == [2, 2, TRIALS_PER_REPLICA]
    assert in_use(placement) == [5 + 16, 5 + 16, 5]


def test_a_search_that_stops_early_runs_all_seeds_of_a_point_at_a_time() -> None:
    def at_a_time(nodes: list[int], *overrides: str) -> list[int]:
        return [phase.trials_at_a_time for phase in placed(SWEEPS / "lab.yaml", nodes, *overrides).phases]

    assert at_a_time([], "seeds=5") == [2, 5, 2]
    assert at_a_time([8], "seeds=5", "cluster.concurrent_trials=1")[1] == 5
    assert at_a_time([], "seeds=5", "search.racing=false") == at_a_time([], "seeds=17") == [2, 2, 2]


def test_a_limit_in_the_sweep_applies_to_every_phase() -> None:
    placement = placed(LARGEST, [8] * 8, "cluster.concurrent_trials=2")
    assert [phase.trials_at_a_time for phase in placement.phases] == [2, 2, 2]


def test_hours_follow_from_prompts_and_the_models_size_and_halve_with_twice_the_engines() -> None:
    model = ["model.aligned=meta-llama/Llama-3.1-8B-Instruct", "cluster.phased=true", "cluster.finetune.workers=4"]
    sweep = read_sweep(SWEEPS / "lab.yaml", model)
    equivalent = EquivalentPoints(sweep, ProfileCache(sweep))
    small, large = (make_plan(sweep, Resources(64, gpus), equivalent).phases for gpus in (4, 8))
    assert small[0].hours and small[1].hours
    for four, eight in zip(small, large, strict=True):
        assert eight.hours == pytest.approx((four.hours or 0) / 2, rel=0.01)
