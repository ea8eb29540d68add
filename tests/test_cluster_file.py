"""The cluster files are valid, and agree with the project."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "cluster.yaml").read_text()


@pytest.fixture
def config() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(TEXT)
    return loaded


def taken(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the file as Ray's launcher fills it in, once it has found nothing wrong with it."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared: dict[str, Any] = prepare_config(config)
    validate_config(prepared)
    return prepared


def test_the_cluster_file_is_valid_for_rays_launcher(config: dict[str, Any]) -> None:
    assert taken(config)["head_node_type"] in config["available_node_types"]


def test_broken_cluster_file_is_detected(config: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import validate_config

    with pytest.raises(Exception, match="max_worker"):
        validate_config(config | {"max_worker": 4})


def test_gpu_nodes_are_on_demand_and_spot_within_limits(config: dict[str, Any]) -> None:
    groups = {name: group for name, group in config["available_node_types"].items() if name != "head"}
    assert {group["node_config"].get("InstanceMarketOptions", {}).get("MarketType") for group in groups.values()} == {
        None,
        "spot",
    }
    assert all(0 <= group["min_workers"] <= group["max_workers"] for group in groups.values())
    assert sum(group["max_workers"] for group in groups.values()) <= config["max_workers"]


def test_every_node_sets_its_image(config: dict[str, Any]) -> None:
    assert all(group["node_config"]["ImageId"] for group in config["available_node_types"].values())


def test_documented_labels_match_the_nodes(config: dict[str, Any]) -> None:
    from safecomm.spec.cluster import Cluster

    (section,) = re.findall(r"#   cluster:\n(?:#     .*\n)+", TEXT)
    cluster = Cluster.model_validate(yaml.safe_load(section.replace("#   ", ""))["cluster"])
    groups = {name: group["labels"] for name, group in config["available_node_types"].items()}
    assert cluster.gpus == 4 * config["max_workers"]
    assert cluster.finetune.labels == groups["train"]
    assert cluster.target.labels == cluster.judge.labels == groups["fleet"]


def test_file_is_valid_with_own_hosts(config: dict[str, Any]) -> None:
    own = yaml.safe_load("\n".join(re.findall(r"^#   (provider: .*|auth: .*)", TEXT, re.MULTILINE)))
    kept = {key: value for key, value in config.items() if key not in ("available_node_types", "head_node_type")}
    del kept["max_workers"]
    assert taken(kept | own)["max_workers"] == len(own["provider"]["worker_ips"])


def test_token_is_copied_and_required_on_all_nodes(config: dict[str, Any]) -> None:
    assert "~/.ray/auth_token" in config["file_mounts"]
    assert any("RAY_AUTH_MODE=token" in command and "~/.bashrc" in command for command in config["setup_commands"])


def test_every_node_has_the_hubs_token_and_the_cache_that_all_nodes_share(
    config: dict[str, Any], ray_job: dict[str, Any]
) -> None:
    exported = " ".join(command for command in config["setup_commands"] if "~/.bashrc" in command)
    assert "export HF_HOME=/mnt/safecomm/" in exported and "export HF_TOKEN=$(cat ~/.hf_token)" in exported
    assert "~/.hf_token" in config["file_mounts"] and "/mnt/safecomm" in str(config["setup_commands"])
    for pod in pods(ray_job):
        variables = {variable["name"]: variable for variable in pod["containers"][0]["env"]}
        mounts = [mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]]
        assert "HF_TOKEN" in variables and any(variables["HF_HOME"]["value"].startswith(path) for path in mounts)


def test_the_dashboard_stays_on_the_head(config: dict[str, Any]) -> None:
    (start,) = [command for command in config["head_start_ray_commands"] if "ray start" in command]
    assert "--dashboard-host=127.0.0.1" in start


def test_nodes_get_a_compiler_and_python_headers(config: dict[str, Any]) -> None:
    (packages,) = [command for command in config["setup_commands"] if "apt-get install" in command]
    assert {"python3-dev", "build-essential", "python3-venv"} <= set(packages.split())


def test_nodes_get_pinned_packages_and_a_bounded_object_store(config: dict[str, Any]) -> None:
    assert any("scripts/install.sh" in command for command in config["setup_commands"])
    starts = [
        command
        for kind in ("head", "worker")
        for command in config[f"{kind}_start_ray_commands"]
        if "ray start" in command
    ]
    assert len(starts) == 2 and all("--object-store-memory=" in start for start in starts)


@pytest.fixture
def ray_job() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docs" / "rayjob.yaml").read_text())["spec"]
    return loaded


def pods(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["rayClusterSpec"]
    return [group["template"]["spec"] for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]]


def test_kubernetes_job_runs_an_existing_sweep_with_the_pinned_ray(ray_job: dict[str, Any]) -> None:
    words = ray_job["entrypoint"].split()
    assert words[:4] == ["python", "-m", "safecomm", "run"] and (ROOT / words[4]).is_file()
    (pinned,) = re.findall(r"^ray==(.*)$", (ROOT / "locks" / "linux-x86_64-gpu.txt").read_text(), re.MULTILINE)
    assert ray_job["rayClusterSpec"]["rayVersion"] == pinned
    images = {container["image"] for pod in pods(ray_job) for container in pod["containers"]}
    assert len(images) == 1 and images.pop().endswith(f"ray-{pinned}")


def test_kubernetes_job_uses_secrets_and_a_token(ray_job: dict[str, Any]) -> None:
    for pod in pods(ray_job):
        for variable in pod["containers"][0]["env"]:
            if variable["name"] == "HF_HOME":
                continue
            assert variable.keys() == {"name", "valueFrom"} and "secretKeyRef" in variable["valueFrom"]
    assert ray_job["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert ray_job["rayClusterSpec"]["headGroupSpec"]["serviceType"] == "ClusterIP"


def test_every_pod_has_the_shared_folder_and_dev_shm(ray_job: dict[str, Any]) -> None:
    storage = ray_job["entrypoint"].split("--storage ")[1]
    for pod in pods(ray_job):
        mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        (shared,) = [name for path, name in mounts.items() if storage.startswith(path)]
        assert "persistentVolumeClaim" in volumes[shared]
        assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"


def test_kubernetes_job_has_the_cluster_files_pools(ray_job: dict[str, Any], config: dict[str, Any]) -> None:
    cluster = ray_job["rayClusterSpec"]
    labels = [group["labels"] for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]]
    assert labels == [group["labels"] for group in config["available_node_types"].values()]


def test_slurm_script_parses_and_requires_a_token() -> None:
    script = ROOT / "docs" / "slurm.sh"
    assert "#SBATCH --mem=0\n" in script.read_text(), "a job has all of a node's memory"
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    text = script.read_text()
    assert text.index("RAY_AUTH_MODE=token") < text.index("ray start")
    assert "--dashboard-host=127.0.0.1" in text
