"""A sweep names the nodes that it waits for, and can plan with GPUs that a cluster starts on demand."""

import pytest

from safecomm.cluster.session import Resources
from safecomm.plan.nodes import expected_resources, selects, waiting_for_nodes
from safecomm.spec import Sweep


def sweep(**cluster: object) -> Sweep:
    return Sweep.model_validate(
        {
            "name": "placed",
            "model": {"base": "lab://base", "aligned": "lab://aligned"},
            "finetune": {"data": ["lab-telecom"]},
            "arms": {},
            "evaluate": {"red_team": ["lab-harm"], "task": ["lab-telecom"]},
            "cluster": cluster,
        }
    )


def test_labels_that_no_node_has_are_told_with_their_key() -> None:
    placed = sweep(finetune={"labels": {"pool": "trian"}}, target={"labels": {"pool": "fleet", "market": "!spot"}})
    nodes = [{"pool": "train"}, {"pool": "fleet", "market": "spot"}]
    first, second = waiting_for_nodes(Resources(8, 0, nodes), placed)
    assert first.startswith("cluster.finetune.labels: no node has pool=trian yet")
    assert second.startswith("cluster.target.labels: no node has pool=fleet, market=!spot yet")
    assert waiting_for_nodes(Resources(8, 0, [{"pool": "trian"}, {"pool": "fleet"}]), placed) == []


def test_a_sweep_without_labels_waits_for_no_node() -> None:
    assert waiting_for_nodes(Resources(8, 0, [{}]), sweep()) == []


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ("a", {"a"}),
        ("!a", {"b", "c", None}),
        ("in(a, b)", {"a", "b"}),
        ("in(a,b)", {"a", "b"}),
        ("!in(a,b)", {"c", None}),
    ],
)
def test_a_selector_means_what_it_means_to_ray(selector: str, selected: set[str | None]) -> None:
    assert {value for value in ("a", "b", "c", None) if selects(selector, value)} == selected


def test_gpus_that_are_started_when_there_is_work_are_counted_on() -> None:
    assert expected_resources(Resources(8, 0), sweep(gpus=16)).gpus == 16
    assert expected_resources(Resources(8, 4), sweep()).gpus == 4
