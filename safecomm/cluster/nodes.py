"""Inspects every node of the cluster."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from safecomm.cluster.node import ANSWER_SECONDS, IMPORT_SECONDS, Node, NodeQuery, inspect_node, leave_probe


def inspect_nodes(query: NodeQuery) -> tuple[list[Node], list[str]]:
    """Runs an inspection task on every node; inspects the driver's node directly.

    Returns:
        The nodes that answered, the driver's first, and the names of those that did not.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    names = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    remote = ray.remote(inspect_node)
    with _with_probe(query) as probing:
        tasks = {
            remote.options(
                num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=node, soft=False)
            ).remote(name, probing): name
            for node, name in names.items()
            if node != here
        }
        own = inspect_node(names[here], probing)
        timeout = ANSWER_SECONDS + 2 * IMPORT_SECONDS * query.imports
        answered, silent = ray.wait(list(tasks), num_returns=len(tasks), timeout=timeout) if tasks else ([], [])
        found, lost = _collect(answered, tasks)
    return [own, *found], lost + [tasks[task] for task in silent]


def _collect(answered: Sequence[Any], tasks: dict[Any, str]) -> tuple[list[Node], list[str]]:
    import ray
    from ray.exceptions import RayError

    found, lost = [], []
    for task in answered:
        try:
            found.append(ray.get(task))
        except RayError as error:
            lost.append(f"{tasks[task]} ({str(error).strip().splitlines()[-1]})")
    return found, lost


@contextmanager
def _with_probe(query: NodeQuery) -> Iterator[NodeQuery]:
    """Keeps a probe folder in the storage while the nodes look for it."""
    if query.storage is None:
        yield query
        return
    probe = leave_probe(Path(query.storage))
    try:
        yield replace(query, probe=probe)
    finally:
        shutil.rmtree(Path(query.storage) / probe, ignore_errors=True)
