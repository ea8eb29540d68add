"""The cluster file that the project ships is one that Ray's launcher takes."""

from pathlib import Path
from typing import Any

import pytest
import yaml

CLUSTER = Path(__file__).parents[1] / "cluster.yaml"


def test_the_cluster_file_is_valid_for_rays_launcher() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config: dict[str, Any] = prepare_config(yaml.safe_load(CLUSTER.read_text()))
    validate_config(config)
    assert config["head_node_type"] in config["available_node_types"]


def test_a_broken_cluster_file_would_be_noticed() -> None:
    from ray.autoscaler._private.util import validate_config

    broken = yaml.safe_load(CLUSTER.read_text()) | {"max_worker": 4}
    with pytest.raises(Exception, match="max_worker"):
        validate_config(broken)


def test_the_token_reaches_the_nodes_and_the_dashboard_stays_inside() -> None:
    config = yaml.safe_load(CLUSTER.read_text())
    assert "~/.ray/auth_token" in config["file_mounts"]
    assert any("--dashboard-host=127.0.0.1" in command for command in config["head_start_ray_commands"])
