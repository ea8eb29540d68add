"""What a sweep may count on of a cluster, and on which nodes its parts land."""

import re
from dataclasses import replace

from safecomm.cluster.session import Resources
from safecomm.spec import Sweep


def counted_on(there: Resources, sweep: Sweep) -> Resources:
    """Returns what there is, with the GPUs that the sweep says the cluster starts when there is work for them."""
    return replace(there, gpus=max(there.gpus, sweep.cluster.gpus))


def waiting_for_nodes(there: Resources, sweep: Sweep) -> list[str]:
    """Returns a line for each part of a sweep that no node has the labels for: it waits until one has joined."""
    cluster = sweep.cluster
    parts = {"finetune": cluster.finetune.labels, "target": cluster.target.labels}
    if sweep.evaluate.judge_models:
        parts["judge"] = cluster.judge.labels
    return [
        f"cluster.{part}.labels: no node has {', '.join(f'{key}={value}' for key, value in labels.items())} yet; "
        "what is to run there waits for one"
        for part, labels in parts.items()
        if not any(all(selects(labels[key], node.get(key)) for key in labels) for node in there.labels)
    ]


def selects(selector: str, value: str | None) -> bool:
    """Says whether a node's label, None where it has none of that name, is what a selector asks for.

    As in Ray: `VALUE`, `in(A,B)`, and with a leading `!` whatever is not that, also no label at all.
    """
    wanted = selector.removeprefix("!")
    values = re.split(", ?", wanted[3:-1]) if wanted.startswith("in(") else [wanted]
    return (value in values) != selector.startswith("!")
