"""A plan counts what a sweep would run, and refuses hardware that would make it wait for ever."""

from pathlib import Path

import pytest

from safecomm.plan import PlacementError, Plan, make_plan
from safecomm.ray_session import Resources
from safecomm.spec import Sweep, read_sweep
from safecomm.sweep.outcomes import Outcomes
from safecomm.sweep.profiles import Profiles

SWEEPS = Path(__file__).parents[1] / "sweeps"
LAPTOP = Resources(cpus=2, gpus=0)


def planned(sweep: Sweep, resources: Resources = LAPTOP) -> Plan:
    return make_plan(sweep, resources, Outcomes(sweep, Profiles(sweep)))


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_sweep_of_the_project_plans(path: Path) -> None:
    plan = planned(read_sweep(path))
    assert plan.arms["original"].trials == 1
    assert plan.concurrent_trials >= 1


def test_shared_fine_tunes_are_counted_once() -> None:
    sweep = read_sweep(SWEEPS / "lab.yaml", ["arms.safe_instruct.0.safe_instruct.ratio={grid: [0.01, 0.03]}"])
    assert planned(sweep).finetunes == 4  # undefended, two mixtures, the safe adapter
    three = sweep.model_copy(update={"seeds": 3})
    assert planned(three).finetunes == 12


def test_a_sampled_ratio_leaves_the_number_of_fine_tunes_open() -> None:
    sweep = read_sweep(SWEEPS / "lab.yaml", ["arms.safe_instruct.0.safe_instruct.ratio={uniform: [0.01, 0.03]}"])
    assert planned(sweep).finetunes is None


def test_the_largest_rank_counts_the_safe_adapter_that_cat_appends() -> None:
    sweep = read_sweep(SWEEPS / "lab.yaml", ["finetune.lora.r=8"])
    assert planned(sweep).max_lora_rank == 16
    linear = read_sweep(SWEEPS / "lab.yaml", ["finetune.lora.r=8", "arms.safe_merge.0.safe_merge.combine=linear"])
    assert planned(linear).max_lora_rank == 8


def test_trials_share_the_gpus_that_the_fleet_leaves() -> None:
    sweep = read_sweep(SWEEPS / "lab.yaml", ["cluster.target={replicas: 2, tensor_parallel: 1}"])
    plan = planned(sweep, Resources(cpus=64, gpus=8))
    assert (plan.fleet_gpus, plan.finetune_gpus, plan.concurrent_trials) == (2, 2, 3)


def test_a_cluster_that_can_not_hold_fleet_and_fine_tune_is_refused_with_the_sum() -> None:
    sweep = read_sweep(SWEEPS / "lab.yaml", ["cluster.target={replicas: 1, tensor_parallel: 2}"])
    with pytest.raises(PlacementError, match=r"fleet needs 2 GPUs .* one fine-tune 2 .* together 4; there are 3"):
        planned(sweep, Resources(cpus=64, gpus=3))
