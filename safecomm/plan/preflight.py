"""Checks before a run's first fine-tune."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from safecomm.cluster.node import NodeQuery
from safecomm.cluster.nodes import inspect_nodes
from safecomm.cluster.reachable import ClusterError
from safecomm.cluster.submit import EXPECTED
from safecomm.plan.checks import (
    Finding,
    check_engines,
    check_keys,
    check_models_seen,
    check_storage,
    check_versions,
)
from safecomm.plan.hub import check_models
from safecomm.spec import Sweep
from safecomm.storage import shared


def check_hub(sweep: Sweep) -> None:
    """Checks that the Hub grants access to all models of a sweep, before downloading any of them.

    Raises:
        ClusterError: if a model is inaccessible; the message has one line per model.
    """
    _refuse(check_models(sweep))


def check_cluster(sweep: Sweep, models: Sequence[Path], on_gpu: bool, say: Callable[[str], object]) -> None:
    """Checks every node of the connected cluster.

    Args:
        sweep: the sweep.
        models: the model folders that the nodes must see.
        on_gpu: whether engines and fine-tunes use GPUs.
        say: receives the warnings.

    Raises:
        ClusterError: if there are problems; the message has one line per problem.
    """
    seen = [str(model) for model in models if not shared.is_copy(model)]  # nodes fetch mirrored models themselves
    nodes, silent = inspect_nodes(NodeQuery(storage=shared.mounted_folder(sweep.storage), models=seen))
    findings = [
        *check_versions(nodes),
        *check_storage(nodes, sweep.storage),
        *check_engines(nodes, sweep.evaluate.engine, on_gpu),
        *check_models_seen(nodes),
        *check_keys(nodes, sweep, expected_secrets()),
        *(Finding("node", "warning", f"{name} did not answer") for name in silent),
    ]
    for finding in findings:
        if finding.level == "warning":
            say(f"{finding.subject}: {finding.text}")
    _refuse(findings)


def expected_secrets() -> list[str]:
    """Returns the names of the secrets that are set on the machine that submitted this job."""
    return [name for name in os.environ.get(EXPECTED, "").split(",") if name]


def _refuse(findings: Sequence[Finding]) -> None:
    if problems := [f"{finding.subject}: {finding.text}" for finding in findings if finding.level == "problem"]:
        raise ClusterError("\n".join(problems))
