"""Diagnoses this machine or a cluster, in general or for a given sweep."""

import os

from safecomm.cluster.node import Node, NodeQuery, inspect_node
from safecomm.cluster.nodes import inspect_nodes
from safecomm.cluster.reachable import token_state
from safecomm.cluster.session import ray_session
from safecomm.plan.checks import (
    Finding,
    check_engines,
    check_gpus,
    check_keys,
    check_room,
    check_storage,
    check_versions,
    has_secret,
)
from safecomm.plan.hub import check_models
from safecomm.plan.preflight import expected_secrets
from safecomm.spec import Sweep
from safecomm.storage import shared


def examine(address: str | None, sweep: Sweep | None) -> list[Finding]:
    """Examines a cluster, or this machine.

    Args:
        address: the cluster's address, as seen from one of its nodes; None for this machine.
        sweep: the sweep to run there, if any.

    Raises:
        ClusterError: if the cluster does not answer.
    """
    storage = shared.mounted_folder(sweep.storage) if sweep else None
    nodes, silent, most = _nodes(address, storage)
    most = max(most, float(sweep.cluster.gpus)) if sweep else most
    findings = [
        *check_versions(nodes),
        *check_engines(nodes, sweep.evaluate.engine if sweep else "vllm", most > 0),
        *check_room(nodes),
        *check_keys(nodes, sweep, expected_secrets()),
        *(Finding("node", "problem", f"{name} did not answer; check it with `ray status`") for name in silent),
        Finding("W&B", "ok", f"runs are logged {_wandb_mode()}"),
        Finding("Ray's token", "ok", f"token authentication is {token_state()}"),
    ]
    if sweep:
        findings += [*check_gpus(sweep, nodes, most), *check_models(sweep)]
        findings += check_storage(nodes, storage) if storage and address else []
    return findings


def _nodes(address: str | None, storage: str | None) -> tuple[list[Node], list[str], float]:
    """Returns the nodes that answered, the names of those that did not, and the number of GPUs."""
    if address is None:
        node = inspect_node("this machine", NodeQuery(imports=True))
        return [node], [], float(len(node.gpus))
    with ray_session(address) as resources:
        return *inspect_nodes(NodeQuery(storage=storage, imports=True)), resources.gpus


def _wandb_mode() -> str:
    return os.environ.get("WANDB_MODE") or ("online" if has_secret("WANDB_API_KEY") else "offline")
