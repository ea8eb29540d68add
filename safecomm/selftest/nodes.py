"""The kinds of nodes that a cluster has, and the node that stands for each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NODE_ID = "ray.io/node-id"
"""Ray's own label of every node, by which work is placed on exactly one."""
OF_ONE_NODE = (NODE_ID, "ray.io/availability-zone", "ray.io/availability-region")
"""Labels that differ between nodes of one kind."""
ACCELERATOR = "accelerator_type:"


@dataclass(frozen=True)
class Node:
    """The node of a kind that is tested."""

    id: str
    address: str
    kind: str
    """In words, e.g. `8 x H100, pool=train`."""
    gpus: int
    free_gpus: int
    """GPUs that nobody uses."""

    @property
    def labels(self) -> dict[str, str]:
        """The labels that only this node has."""
        return {NODE_ID: self.id}


def nodes_to_test(nodes: Sequence[Mapping[str, Any]], free: Mapping[str, Mapping[str, float]]) -> list[Node]:
    """Returns one node of each kind, the one with the most GPUs free.

    Nodes are of one kind where they have the same GPUs and the same labels. Where any node has GPUs, those without run
    neither fine-tunes nor engines, and are left out.

    Args:
        nodes: what `ray.nodes()` returns.
        free: node -> the resources that nobody uses.
    """
    found = [_node(node, free.get(node["NodeID"], {})) for node in nodes if node["Alive"]]
    if any(node.gpus for node in found):
        found = [node for node in found if node.gpus]
    best: dict[str, Node] = {}
    for node in found:
        if node.kind not in best or node.free_gpus > best[node.kind].free_gpus:
            best[node.kind] = node
    return list(best.values())


def _node(node: Mapping[str, Any], free: Mapping[str, float]) -> Node:
    gpus = int(node["Resources"].get("GPU", 0))
    return Node(
        id=node["NodeID"],
        address=node["NodeManagerAddress"],
        kind=_kind(gpus, node),
        gpus=gpus,
        free_gpus=int(free.get("GPU", 0)),
    )


def _kind(gpus: int, node: Mapping[str, Any]) -> str:
    models = sorted(name.removeprefix(ACCELERATOR) for name in node["Resources"] if name.startswith(ACCELERATOR))
    hardware = f"{gpus} x {', '.join(models) or 'GPU'}" if gpus else "CPU"
    labels = {key: value for key, value in node.get("Labels", {}).items() if key not in OF_ONE_NODE}
    return ", ".join([hardware, *(f"{key}={value}" for key, value in sorted(labels.items()))])
