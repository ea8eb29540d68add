"""A plan counts a sweep's work, and rejects hardware on which it would wait indefinitely."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from safecomm.cluster.session import Resources
from safecomm.plan.placement import PlacementError
from safecomm.plan.plan import Plan, make_plan
from safecomm.search.arms import seeded
from safecomm.search.equivalence import EquivalentPoints
from safecomm.search.fine_tunes import fine_tunes
from safecomm.search.profile_cache import ProfileCache
from safecomm.search.record import TrialRecord
from safecomm.search.run_folder import RunFolder
from safecomm.spec import Sweep, read_sweep

SWEEPS = Path(__file__).parents[2] / "sweeps"
TWO_RANKS = "cluster.finetune.workers=2"
EPOCHS = ["finetune.epochs=7"]
LAPTOP = Resources(cpus=2, gpus=0)


def planned(sweep: Sweep, resources: Resources = LAPTOP) -> Plan:
    return make_plan(sweep, resources, EquivalentPoints(sweep, ProfileCache(sweep)))


def test_shared_fine_tunes_are_counted_once() -> None:
    sweep = read_sweep(SWEEPS / "lab.yaml", ["arms.safe_instruct.0.safe_instruct.ratio={grid: [0.01, 0.03]}"])
    assert planned(sweep).finetunes == 4  # undefended, two mixtures, the safe adapter
    three = sweep.model_copy(update={"seeds": 3})
    assert planned(three).finetunes == 12


def test_further_training_is_counted_per_learning_rate_and_asks_the_task_only_for_a_limit_on_accuracy() -> None:
    plain, limited = (
        planned(read_sweep(SWEEPS / "lab-attacks.yaml", overrides)).further
        for overrides in ([], ["tamper.learning_rate=[1e-4, 1e-3]", "tamper.max_accuracy_drop=0.05"])
    )
    assert plain and limited
    assert (limited.trainings, limited.trials) == (2 * plain.trainings, 2 * plain.trials)
    assert limited.prompts > plain.prompts


def test_a_sampled_ratio_leaves_the_number_of_fine_tunes_open() -> None:
    sweep = read_sweep(SWEEPS / "lab.yaml", ["arms.safe_instruct.0.safe_instruct.ratio={uniform: [0.01, 0.03]}"])
    assert planned(sweep).finetunes is None


def test_the_largest_rank_counts_the_safe_adapter_that_cat_appends() -> None:
    sweep = read_sweep(SWEEPS / "lab.yaml", ["finetune.lora.r=8"])
    assert planned(sweep).max_lora_rank == 16
    linear = read_sweep(SWEEPS / "lab.yaml", ["finetune.lora.r=8", "arms.safe_merge.0.safe_merge.combine=linear"])
    assert planned(linear).max_lora_rank == 8


def test_trials_share_the_gpus_that_the_fleet_leaves() -> None:
    sweep = read_sweep(SWEEPS / "lab.yaml", [TWO_RANKS, "cluster.target={replicas: 2, tensor_parallel: 1}"])
    plan = planned(sweep, Resources(cpus=64, gpus=8))
    assert (plan.fleet_gpus, plan.finetune_gpus, plan.trials_at_a_time("train")) == (2, 2, 3)


def test_a_cluster_that_can_not_hold_fleet_and_fine_tune_is_refused_with_the_sum() -> None:
    sweep = read_sweep(SWEEPS / "lab.yaml", [TWO_RANKS, "cluster.target={replicas: 1, tensor_parallel: 2}"])
    with pytest.raises(
        PlacementError, match=r"engines need 2 GPUs .* one fine-tune needs 2 .* together 4; there are 3"
    ):
        planned(sweep, Resources(cpus=64, gpus=3))


def test_trials_of_another_fine_tune_or_another_arm_are_not_counted_as_made(tmp_path: Path) -> None:
    two = "arms={safe: [{scale: {factor: 0.5}}], safe-er: [{scale: {factor: 0.2}}]}"
    sweep, longer = (read_sweep(SWEEPS / "lab.yaml", [f"storage={tmp_path}", two, *more]) for more in ([], EPOCHS))
    (trial,) = seeded(sweep, "safe-er", {})
    RunFolder(sweep).keep(TrialRecord.of(trial, "done"))
    assert {arm: one.done for arm, one in planned(sweep).arms.items()}.get("safe-er") == 1
    assert planned(sweep).trials_remaining == planned(sweep).trials - 1
    assert planned(longer).trials_remaining == planned(longer).trials


def test_what_is_made_already_is_counted_without_torch_ray_or_vllm(tmp_path: Path) -> None:
    sweep = read_sweep(SWEEPS / "lab.yaml", [f"storage={tmp_path}"])
    folder = RunFolder(sweep)
    folder.keep(TrialRecord.of(fine_tunes(sweep, EquivalentPoints(sweep, ProfileCache(sweep)))[0], "done"))
    (point, *_) = EquivalentPoints(sweep, ProfileCache(sweep)).points("safe_lora") or []
    (trial,) = seeded(sweep, "safe_lora", point)
    folder.keep(TrialRecord.of(trial, "done"))
    plan = planned(sweep)
    assert (plan.finetunes_done, plan.arms["safe_lora"].done, plan.trials_remaining) == (1, 1, plan.trials - 1)
    command = [sys.executable, "-X", "importtime", "-m", "safecomm", "plan", str(SWEEPS / "lab.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "safe_merge" in done.stdout
    assert not re.search(r"\| +(torch|ray|vllm)$", done.stderr, re.M)


def test_a_model_that_can_not_fit_its_gpus_is_refused_with_what_would_fit() -> None:
    large = ["model.aligned=meta-llama/Llama-3.1-70B-Instruct", "cluster.gpu_memory=80"]
    with pytest.raises(PlacementError, match=r"cluster\.target needs .*tensor_parallel: 4.*finetune\.zero: 3"):
        planned(read_sweep(SWEEPS / "lab.yaml", large), Resources(cpus=64, gpus=4))
    small = ["model.aligned=meta-llama/Llama-3.1-8B-Instruct", "cluster.gpu_memory=80"]
    plan = planned(read_sweep(SWEEPS / "lab.yaml", small), Resources(cpus=64, gpus=4))
    assert any("cluster.target needs about" in line for line in plan.memory)
