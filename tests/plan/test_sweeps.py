"""Every bundled sweep, and every command in its comments, can be read and planned without the Hub."""

import itertools
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from safecomm.cluster.session import Resources
from safecomm.plan.placement import PlacementError, least_gpus
from safecomm.plan.plan import Plan, make_plan
from safecomm.search.equivalence import EquivalentPoints
from safecomm.search.profile_cache import ProfileCache
from safecomm.spec import Sweep, read_sweep
from safecomm.spec.published import departures, find_published

ROOT = Path(__file__).parents[2]
SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))
LARGEST = ROOT / "sweeps" / "llama-3.1-70b.yaml"


def planned(sweep: Sweep, gpus: int | None = None) -> Plan:
    equivalent = EquivalentPoints(sweep, ProfileCache(sweep))
    at_least = least_gpus(sweep, equivalent) if sweep.cluster.gpu_memory else 0
    return make_plan(sweep, Resources(cpus=8, gpus=at_least if gpus is None else gpus), equivalent, fetch=False)


def commands(path: Path) -> list[list[str]]:
    """Returns the words of each `safecomm run` in the comments of a sweep."""
    comments = "\n".join(line[1:].strip() for line in path.read_text().splitlines() if line.startswith("#"))
    return [shlex.split(line) for line in re.findall(r"^safecomm run .*", comments.replace("\\\n", ""), re.M)]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.name)
def test_a_sweep_opens_with_its_launch_line_and_what_it_takes(path: Path) -> None:
    assert ["safecomm", "run", f"sweeps/{path.name}"] in [words[:3] for words in commands(path)]
    assert read_sweep(path).name == path.stem
    if read_sweep(path).cluster.gpu_memory:
        for told in ("GPUs: ", "GPU-hours", "estimated", "Disk: ", "?\n"):
            assert told in path.read_text(), told


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.name)
def test_every_command_in_a_sweeps_comments_plans_with_the_memory_of_each_gpu(path: Path) -> None:
    for words in commands(path):
        overrides = [value for flag, value in itertools.pairwise(words) if flag == "--set"]
        sweep = read_sweep(path, overrides)
        plan = planned(sweep)
        assert plan.arms["original"].trials == sweep.seeds and plan.trials_at_a_time("search") >= 1
        if sweep.cluster.gpu_memory:
            assert plan.memory[0].startswith("each GPU of cluster.target needs about")
            assert plan.memory[1].startswith(
                f"each of {sweep.cluster.finetune.workers} fine-tuning workers needs about"
            )
            assert plan.memory[2].startswith("each GPU of cluster.judge needs about")


def test_a_judge_of_unknown_size_hides_nothing_of_what_is_known() -> None:
    judges = ["evaluate.judges=[{name: own, model: nobody/own}, llama-guard-3]"]
    *known, unknown = planned(read_sweep(LARGEST, judges)).memory
    assert len(known) == 3 and unknown.startswith("not estimated: model nobody/own")


def test_the_safe_adapter_of_a_model_that_is_tuned_already_counts_as_a_fine_tune() -> None:
    given = read_sweep(ROOT / "sweeps" / "tele-llms.yaml")
    assert any("fine-tuning workers" in line for line in planned(given).memory)
    arms = ["finetune.safe_adapter=null", "arms={safe_lora: [{safe_lora: {lowest: 3}}]}"]
    assert not any(
        "fine-tuning" in line for line in planned(read_sweep(ROOT / "sweeps" / "tele-llms.yaml", arms)).memory
    )


@pytest.mark.parametrize("path", [path for path in SWEEPS if path.stem.startswith("paper")], ids=lambda path: path.name)
def test_a_sweep_that_repeats_the_study_departs_from_it_in_the_grader_alone(path: Path) -> None:
    sweep = read_sweep(path)
    published = find_published("safecomm", sweep.model.aligned, ["teleqna"])
    assert [key for key, *_ in departures(published, sweep.resolved())] == ["evaluate.grader.model"]
    names = {ref.name for ref in [*sweep.evaluate.red_team, *sweep.evaluate.task]}
    assert names == set(published.rates) and {"original", "undefended", *sweep.arms} == set(published.rates["teleqna"])


def test_the_70b_sweep_is_planned_on_eight_gpus_without_further_options() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "safecomm", "plan", str(LARGEST)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "8 for each fine-tune, at least 8" in done.stdout
    assert "each GPU of cluster.target needs about" in done.stdout
    assert "each of 8 fine-tuning workers needs about" in done.stdout
    assert not re.search(r"\| +(torch|ray|vllm|datasets)$", done.stderr, re.M)


def test_the_70b_sweep_is_refused_on_two_gpus_with_what_would_fit() -> None:
    with pytest.raises(PlacementError, match=r"in turn 8; there are 2\. Use 8 GPUs of 79 GiB"):
        planned(read_sweep(LARGEST), gpus=2)
    small = ["cluster.finetune.workers=2", "cluster.target.tensor_parallel=1"]
    with pytest.raises(PlacementError, match=r"it would fit with cluster\.target\.tensor_parallel: 2"):
        planned(read_sweep(LARGEST, small), gpus=2)


def test_engines_and_fine_tunes_add_up_unless_they_take_turns() -> None:
    def least(*overrides: str) -> int:
        sweep = read_sweep(LARGEST, list(overrides))
        return least_gpus(sweep, EquivalentPoints(sweep, ProfileCache(sweep)))

    assert least() == 8
    assert least("cluster.phased=false") == 13
    searched = "arms.safe_instruct.0.safe_instruct.ratio={uniform: [0.01, 0.1]}"
    assert least(searched) == 13  # the search makes fine-tunes while the engines run


def test_the_plan_of_the_medical_sweep_never_says_telecom() -> None:
    command = [sys.executable, "-m", "safecomm", "plan", str(ROOT / "sweeps" / "medical.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "5 distinct" in done.stdout
    assert "telecom" not in (done.stdout + done.stderr + (ROOT / "sweeps" / "medical.yaml").read_text()).lower()


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.name)
def test_no_phase_of_a_sweep_leaves_a_gpu_idle_and_each_has_its_hours(path: Path) -> None:
    sweep = read_sweep(path)
    phases = planned(sweep).phases
    assert all(phase.hours for phase in phases if phase.gpus)
    assert [phase.name for phase in phases] == ["train", "search", "report"]
    kept = sweep.cluster.finetune.workers if sweep.drift else 0  # the engines measure while later generations train
    assert all(phase.gpus - phase.gpus_in_use in (0, kept) for phase in phases)


def test_the_plan_as_json_has_the_phases_of_its_text() -> None:
    command = [sys.executable, "-m", "safecomm", "plan", str(ROOT / "sweeps" / "paper-llama-3.1-8b.yaml"), "--gpus=8"]
    text, as_json = (
        subprocess.run([*command, *flag], capture_output=True, text=True, check=True).stdout
        for flag in ([], ["--json"])
    )
    for phase in json.loads(as_json)["phases"]:
        assert set(phase) == {"name", "gpus", "gpus_in_use", "trials_at_a_time", "hours"}
        told = f"{phase['name'].capitalize()}: {phase['gpus_in_use']} of {phase['gpus']} GPUs in use, "
        assert f"{told}{phase['trials_at_a_time']} trials at a time" in text
