"""The kinds of nodes in a cluster, and the node that is tested for each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NODE_ID = "ray.io/node-id"
"""Ray's label for the id of a node, which places work on that node."""
OF_ONE_NODE = (NODE_ID, "ray.io/availability-zone", "ray.io/availability-region")
"""Labels that may differ between nodes of the same kind."""
ACCELERATOR = "accelerator_type:"


@dataclass(frozen=True)
class Node:
    """A node under test, as the representative of its kind."""

    id: str
    address: str
    kind: str
    """A description, e.g. `8 x H100, pool=train`."""
    gpus: int
    free_gpus: int
    """GPUs that no Ray task or actor uses."""

    @property
    def labels(self) -> dict[str, str]:
        """The labels that only this node has."""
        return {NODE_ID: self.id}


def nodes_to_test(nodes: Sequence[Mapping[str, Any]], free: Mapping[str, Mapping[str, float]]) -> list[Node]:
    """Returns one node of each kind: the one with the most free GPUs.

    Nodes with the same GPUs and labels are of the same kind. If any node has GPUs, those without are omitted, because
    they run neither fine-tunes nor engines.

    Args:
        nodes: the result of `ray.nodes()`.
        free: node id -> its unused resources.
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
