"""Checks a cluster's nodes; each finding says how to fix the problem."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safecomm.cluster.node import KEY, Node, pins
from safecomm.search.equivalence import EquivalentPoints
from safecomm.search.profile_cache import ProfileCache
from safecomm.spec import Sweep
from safecomm.storage.hub_cache import is_snapshot

Level = Literal["ok", "warning", "problem"]
FIX = "run scripts/install.sh there"
MIN_DISK_GIB = 10.0
MIN_SHM_GIB = 2.0
"""With less, NCCL and Ray's object store fail with obscure errors."""


@dataclass(frozen=True)
class Finding:
    """The result of a check."""

    subject: str
    level: Level
    text: str


def check_versions(nodes: Sequence[Node]) -> list[Finding]:
    """Compares every node's Python and packages with the driver's, and the driver's with the pinned versions."""
    driver, wanted = nodes[0], pins()
    findings = [
        Finding(
            "Python",
            "problem",
            f"{node.name} has {node.python}, {driver.name} has {driver.python}; Ray needs the same version everywhere",
        )
        for node in nodes
        if node.python != driver.python
    ]
    for node in nodes:
        if node.versions != driver.versions:
            names = sorted({name for name, _ in node.versions.items() ^ driver.versions.items()} - {"vllm"})
            other = [f"{name} {_version(node, name)} ({driver.name}: {_version(driver, name)})" for name in names]
            findings += [Finding("packages", "problem", f"{node.name} has {', '.join(other)}; {FIX}")] if other else []
    off = [
        f"{name} {_version(driver, name)} (pinned: {pin})" for name, pin in wanted.items() if _is_off(driver, name, pin)
    ]
    if off:
        findings.append(Finding("packages", "warning", f"{driver.name} has {', '.join(off)}; {FIX}"))
    if not wanted:
        findings.append(Finding("packages", "warning", "safecomm is not installed, so its pinned versions are unknown"))
    ok = f"Python {driver.python}, {len(wanted)} pinned packages, on {_count(nodes)}"
    return findings or [Finding("packages", "ok", ok)]


def check_engines(nodes: Sequence[Node], engine: str = "vllm", on_gpu: bool = False) -> list[Finding]:
    """Finds nodes on which engines or fine-tunes can't start.

    Args:
        nodes: the nodes.
        engine: the sweep's engine.
        on_gpu: whether engines and fine-tunes run only on nodes with GPUs.
    """

    def level(node: Node, module: str) -> Level:
        is_needed = (node.gpus or not on_gpu) and (module != "vllm" or engine == "vllm")
        return "problem" if is_needed else "warning"

    hints = {"vllm": f"{FIX}, or set evaluate.engine: transformers", "deepspeed": FIX}
    findings = [
        Finding(module, level(node, module), f"{node.name}: {module} {fault}; {hints[module]}")
        for node in nodes
        for module, fault in node.faults.items()
    ]
    return findings or [Finding("engines", "ok", "vLLM and DeepSpeed are installed on every node")]


def check_storage(nodes: Sequence[Node], storage: str) -> list[Finding]:
    """Finds nodes that can't see the storage or write to it."""
    if Path(storage).expanduser().resolve().is_relative_to(Path.cwd()) and "runtime_resources" in Path.cwd().parts:
        text = f"{storage} is in the job's working directory, which Ray deletes; set --storage to a shared folder"
        return [Finding("storage", "problem", text)]
    fix = "mount the same file system at the same path on every node, writable by Ray's user"
    findings = [
        Finding("storage", "problem", f"{storage}: {node.name} {node.storage_fault}; {fix}")
        for node in nodes
        if node.storage_fault
    ]
    return findings or [Finding("storage", "ok", f"{storage} is visible and writable on {_count(nodes)}")]


def check_models_seen(nodes: Sequence[Node]) -> list[Finding]:
    """Finds nodes that can't see a model's folder. Models in a Hub cache are only slow there: a node downloads them."""
    findings = []
    for node in nodes:
        cached = [model for model in node.unseen_models if is_snapshot(Path(model))]
        if missing := [model for model in node.unseen_models if model not in cached]:
            text = f"{node.name} does not see {', '.join(missing)}; use folders on the shared storage"
            findings.append(Finding("models", "problem", text))
        if cached:
            text = (
                f"{node.name} has no copy of {', '.join(cached)} and downloads it when it needs it, with the node's "
                "HF_TOKEN; set HF_HOME on every node to a folder on a shared disk to download once"
            )
            findings.append(Finding("models", "warning", text))
    return findings


def check_gpus(sweep: Sweep, nodes: Sequence[Node], most: float) -> list[Finding]:
    """Compares the GPUs that a sweep needs with the maximum that the cluster can have.

    Args:
        sweep: the sweep.
        nodes: the nodes.
        most: the current number of GPUs, or `cluster.gpus` if that is larger.
    """
    from safecomm.plan.placement import least_gpus

    if not most:
        return [Finding("GPUs", "ok", "none: the sweep runs on CPUs, as the lab's does")]
    needed = least_gpus(sweep, EquivalentPoints(sweep, ProfileCache(sweep)))
    if needed > most:
        text = (
            f"the sweep needs {needed} at a time (cluster.target, cluster.judge, cluster.finetune.workers) and the "
            f"cluster has {most:g}; lower replicas, tensor_parallel or workers, or add GPUs; if the cluster "
            "autoscales, set cluster.gpus to its maximum"
        )
        return [Finding("GPUs", "problem", text)]
    kinds = Counter(gpu for node in nodes for gpu in node.gpus)
    names = ", ".join(f"{count} x {gpu}" for gpu, count in kinds.items()) or "none yet"
    return [Finding("GPUs", "ok", f"the sweep needs {needed}, the cluster can have {most:g}; now: {names}")]


def check_room(nodes: Sequence[Node]) -> list[Finding]:
    """Finds nodes with too little shared memory or disk."""
    findings = [
        Finding(subject, "warning", f"{node.name}: {have:.1f} GiB of {what}; below {least:g} GiB {consequence}")
        for node in nodes
        for subject, have, least, what, consequence in (
            ("/dev/shm", node.shm_gib, MIN_SHM_GIB, "/dev/shm", "start containers with --shm-size"),
            ("disk", node.disk_gib, MIN_DISK_GIB, "free disk in /tmp", "Ray can't spill"),
        )
        if have < least
    ]
    memory = ", ".join(f"{node.name}: {node.memory_gib:.0f} GiB" for node in nodes)
    return findings or [Finding("memory", "ok", f"{memory}; /dev/shm and disk are sufficient")]


def check_keys(nodes: Sequence[Node], sweep: Sweep | None, expected: Iterable[str] = ()) -> list[Finding]:
    """Finds secrets that the nodes lack although the sweep needs them or the submitting machine has them.

    Args:
        nodes: the nodes.
        sweep: the sweep, if any.
        expected: names of the secrets that are set on the submitting machine.
    """
    lacking: dict[str, str] = {}
    without = [node.name for node in nodes if not node.has_key]
    judges = sweep.evaluate.everyone if sweep else []
    if without and (KEY in expected or any(judge.url for judge in judges)):
        lacking[KEY] = f"on {', '.join(without)}"
    for name in {"HF_TOKEN", "WANDB_API_KEY"} & set(expected):
        if not has_secret(name):
            lacking[name] = f"on {nodes[0].name}"
    fix = "set it in the environment of `ray start` on the nodes; submitting a job never sends secrets"
    return [Finding(name, "warning", f"is not set {where}; {fix}") for name, where in sorted(lacking.items())]


def has_secret(name: str) -> bool:
    """Returns whether this process has a secret, in its environment or from a stored login."""
    if os.environ.get(name):
        return True
    if name == "HF_TOKEN":
        from huggingface_hub import get_token

        return get_token() is not None
    if name == "WANDB_API_KEY":
        from requests.utils import get_netrc_auth

        return get_netrc_auth(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")) is not None
    return False


def _count(nodes: Sequence[Node]) -> str:
    return "one node" if len(nodes) == 1 else f"all {len(nodes)} nodes"


def _version(node: Node, package: str) -> str:
    return node.versions.get(package, "none")


def _is_off(node: Node, package: str, pin: str) -> bool:
    """Returns whether a package differs from the pinned version; `check_engines` reports a missing vLLM."""
    if package == "vllm" and package not in node.versions:
        return False
    parts = pin.split(".")
    return _version(node, package).partition("+")[0].split(".")[: len(parts)] != parts
