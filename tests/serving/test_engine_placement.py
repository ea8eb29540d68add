"""Engines are placed on the nodes that the sweep selects, with all GPUs of their parallel groups."""

import pytest
from ray import serve

from safecomm.serving.engine import EngineSettings
from safecomm.serving.fleet import Fleet, Replica
from safecomm.spec.cluster import Replicas

SETTINGS = EngineSettings(max_new_tokens=8, max_model_len=64, max_lora_rank=8, lora_targets=("q_proj",))


@pytest.mark.parametrize("labels", [{}, {"pool": "fleet"}])
def test_an_engine_and_each_of_its_parts_select_nodes_by_the_labels(labels: dict[str, str]) -> None:
    whole, split = (
        serve.deployment(Replica).options(**Fleet.of("vllm", "model", SETTINGS, size, on_gpu=True)._resources())
        for size in (Replicas(labels=labels), Replicas(labels=labels, tensor_parallel=2))
    )
    assert whole.ray_actor_options["label_selector"] == labels
    config = split._replica_config
    assert config.placement_group_bundle_label_selector == [labels] * len(config.placement_group_bundles)


@pytest.mark.parametrize(("pipeline", "strategy"), [(1, "STRICT_PACK"), (2, "PACK")])
def test_a_tensor_parallel_group_shares_a_node_and_pipeline_stages_need_not(pipeline: int, strategy: str) -> None:
    size = Replicas(tensor_parallel=2, pipeline_parallel=pipeline)
    deployment = serve.deployment(Replica).options(**Fleet.of("vllm", "m", SETTINGS, size, on_gpu=True).options())
    assert deployment._replica_config.placement_group_strategy == strategy
