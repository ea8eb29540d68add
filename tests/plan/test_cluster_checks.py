"""Problems of nodes are reported with the node's name and a fix."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from safecomm.cluster.node import Node, NodeQuery, inspect_node, leave_probe, pins
from safecomm.plan import checks
from safecomm.plan.checks import Finding
from safecomm.plan.placement import least_gpus
from safecomm.search.equivalence import EquivalentPoints
from safecomm.search.profile_cache import ProfileCache
from safecomm.spec import Sweep, read_sweep

ROOT = Path(__file__).parents[2]


@pytest.fixture
def sweep() -> Sweep:
    return read_sweep(ROOT / "sweeps" / "lab.yaml", ["cluster.target.replicas=6"])


@pytest.fixture
def node() -> Node:
    versions = dict(pins())
    return Node("10.0.0.1", "3.11.7", versions, [], memory_gib=64, shm_gib=16, disk_gib=100)


def problems(findings: list[Finding]) -> list[str]:
    return [finding.text for finding in findings if finding.level == "problem"]


def test_nodes_that_are_alike_are_well(node: Node) -> None:
    nodes = [node, replace(node, name="10.0.0.2")]
    found = [*checks.check_versions(nodes), *checks.check_engines(nodes), *checks.check_room(nodes)]
    assert {finding.level for finding in found} == {"ok"}


def test_another_python_and_another_version_of_a_package_are_named(node: Node) -> None:
    other = replace(node, name="10.0.0.2", python="3.12.1", versions=node.versions | {"ray": "2.55.1"})
    python, packages = problems(checks.check_versions([node, other]))
    assert "10.0.0.2 has 3.12.1, 10.0.0.1 has 3.11.7" in python
    assert f"10.0.0.2 has ray 2.55.1 (10.0.0.1: {node.versions['ray']})" in packages and "transformers" not in packages


def test_versions_that_are_not_the_pinned_ones_are_a_warning(node: Node) -> None:
    (found,) = checks.check_versions([replace(node, versions=node.versions | {"torch": "2.12.1", "trl": "1.16.7"})])
    assert found.level == "warning" and "torch 2.12.1 (pinned: 2.13.0)" in found.text and "trl" not in found.text


def test_a_node_without_vllm_is_named_unless_the_sweep_needs_none(node: Node) -> None:
    nodes = [node, replace(node, name="10.0.0.2", faults={"vllm": "is not installed"})]
    (text,) = problems(checks.check_engines(nodes))
    assert "10.0.0.2: vllm is not installed" in text and "scripts/install.sh" in text
    assert not problems(checks.check_engines(nodes, "transformers"))


def test_on_a_cluster_with_gpus_only_the_nodes_that_have_some_need_vllm(node: Node) -> None:
    head, worker = replace(node, faults={"vllm": "is not installed"}), replace(node, name="10.0.0.2", gpus=["L40S"])
    assert not problems(checks.check_engines([head, worker], on_gpu=True))
    assert problems(checks.check_engines([worker, replace(worker, faults=head.faults)], on_gpu=True))


def test_more_gpus_than_the_cluster_has_are_refused(node: Node, sweep: Sweep) -> None:
    needed = least_gpus(sweep, EquivalentPoints(sweep, ProfileCache(sweep)))
    (text,) = problems(checks.check_gpus(sweep, [node], needed - 1))
    assert f"needs {needed} " in text and f"cluster has {needed - 1};" in text
    assert not problems(checks.check_gpus(sweep, [node], needed))
    assert not problems(checks.check_gpus(sweep, [node], 0))


def test_a_model_on_the_drivers_own_disk_is_told(node: Node) -> None:
    (text,) = problems(checks.check_models_seen([node, replace(node, name="10.0.0.2", unseen_models=["/local/m"])]))
    assert "10.0.0.2 does not see /local/m" in text and "shared storage" in text


def test_a_node_without_a_model_of_the_hub_downloads_it_and_is_told_how_to_share_it(node: Node) -> None:
    cached = f"/cache/hub/models--acme--m/snapshots/{'0' * 40}"
    (found,) = checks.check_models_seen([node, replace(node, name="10.0.0.2", unseen_models=[cached])])
    assert found.level == "warning" and "HF_HOME" in found.text and "HF_TOKEN" in found.text


def test_a_storage_is_seen_where_the_drivers_mark_is_and_where_one_may_write(tmp_path: Path, node: Node) -> None:
    probe = leave_probe(tmp_path / "runs")
    assert not inspect_node("here", NodeQuery(str(tmp_path / "runs"), probe)).storage_fault
    elsewhere = inspect_node("there", NodeQuery(str(tmp_path / "other"), probe))
    (text,) = problems(checks.check_storage([node, elsewhere], str(tmp_path)))
    assert "there does not see" in text and "mount" in text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_storage_that_is_read_only_on_a_node_is_told(tmp_path: Path) -> None:
    probe = leave_probe(tmp_path)
    (tmp_path / probe).chmod(0o500)
    assert "can't write there" in inspect_node("there", NodeQuery(str(tmp_path), probe)).storage_fault


def test_a_storage_in_the_jobs_own_copy_is_refused(tmp_path: Path, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    job = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    job.mkdir(parents=True)
    monkeypatch.chdir(job)
    (text,) = problems(checks.check_storage([node], "runs"))
    assert "Ray deletes" in text
    assert not problems(checks.check_storage([node], str(tmp_path / "runs")))


def test_a_secret_that_the_job_does_not_have_is_told_by_name(
    node: Node, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN", "not-a-real-token")
    other = replace(node, name="10.0.0.2", has_key=True)
    found = checks.check_keys([node, other], sweep, ["HF_TOKEN", "OPENAI_API_KEY"])
    assert [finding.subject for finding in found] == ["OPENAI_API_KEY"]
    assert "on 10.0.0.1;" in found[0].text and found[0].level == "warning"
    assert "not-a-real-token" not in json.dumps([finding.text for finding in found])
    assert not checks.check_keys([other], sweep, ["HF_TOKEN"])


def test_a_judge_behind_a_url_needs_its_key_on_every_node(node: Node) -> None:
    judge = "evaluate.judges=[{name: far, model: m, url: 'http://127.0.0.1:1/v1'}]"
    found = checks.check_keys([node], read_sweep(ROOT / "sweeps" / "lab.yaml", [judge]))
    assert [finding.subject for finding in found] == ["OPENAI_API_KEY"]


def test_a_short_dev_shm_is_told(node: Node) -> None:
    (found,) = checks.check_room([replace(node, shm_gib=0.06)])
    assert found.level == "warning" and "--shm-size" in found.text
