"""The resources that a sweep can expect from a cluster, and the nodes that match its labels."""

import re
from dataclasses import replace

from safecomm.cluster.session import Resources
from safecomm.spec import Sweep


def expected_resources(current: Resources, sweep: Sweep) -> Resources:
    """Returns the current resources, with GPUs raised to the number that the cluster can autoscale to."""
    return replace(current, gpus=max(current.gpus, sweep.cluster.gpus))


def waiting_for_nodes(current: Resources, sweep: Sweep) -> list[str]:
    """Returns a message for each part of a sweep whose labels no node has; it waits until such a node joins."""
    cluster = sweep.cluster
    parts = {"finetune": cluster.finetune.labels, "target": cluster.target.labels}
    if sweep.evaluate.judge_models:
        parts["judge"] = cluster.judge.labels
    return [
        f"cluster.{part}.labels: no node has {', '.join(f'{key}={value}' for key, value in labels.items())} yet; "
        "this part waits for one"
        for part, labels in parts.items()
        if not any(all(selects(labels[key], node.get(key)) for key in labels) for node in current.labels)
    ]


def selects(selector: str, value: str | None) -> bool:
    """Returns whether a node's label matches a Ray label selector.

    Args:
        selector: `VALUE` or `in(A,B)`; a leading `!` negates it, and then also matches a missing label.
        value: the node's label; None if it is missing.
    """
    wanted = selector.removeprefix("!")
    values = re.split(", ?", wanted[3:-1]) if wanted.startswith("in(") else [wanted]
    return (value in values) != selector.startswith("!")
