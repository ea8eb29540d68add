"""What is amiss with a cluster, from what its nodes answered: each finding says what to do."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safecomm.cluster.node import KEY, Node, pins
from safecomm.search.outcomes import Outcomes
from safecomm.search.profiles import Profiles
from safecomm.spec import Sweep

Level = Literal["ok", "warning", "problem"]
MEND = "run scripts/install.sh there"
LEAST_DISK_GIB = 10.0
LEAST_SHM_GIB = 2.0
"""NCCL and Ray's object store fail in obscure ways with less."""


@dataclass(frozen=True)
class Finding:
    """The outcome of a check."""

    subject: str
    level: Level
    text: str


def check_versions(nodes: Sequence[Node]) -> list[Finding]:
    """Compares Python and the packages of every node with the driver's, and the driver's with the pins."""
    driver, wanted = nodes[0], pins()
    findings = [
        Finding("Python", "problem", f"{node.name} has {node.python}, {driver.name} {driver.python}; Ray needs one")
        for node in nodes
        if node.python != driver.python
    ]
    for node in nodes:
        if node.versions != driver.versions:
            names = sorted({name for name, _ in node.versions.items() ^ driver.versions.items()} - {"vllm"})
            other = [f"{name} {_version(node, name)} ({driver.name}: {_version(driver, name)})" for name in names]
            findings += [Finding("packages", "problem", f"{node.name} has {', '.join(other)}; {MEND}")] if other else []
    off = [
        f"{name} {_version(driver, name)} (pinned: {pin})" for name, pin in wanted.items() if _is_off(driver, name, pin)
    ]
    if off:
        findings.append(Finding("packages", "warning", f"{driver.name} has {', '.join(off)}; {MEND}"))
    if not wanted:
        findings.append(Finding("packages", "warning", "safecomm is not installed here, so its pins are not known"))
    ok = f"Python {driver.python}, {len(wanted)} pinned packages, on {_count(nodes)}"
    return findings or [Finding("packages", "ok", ok)]


def check_engines(nodes: Sequence[Node], engine: str = "vllm", on_gpu: bool = False) -> list[Finding]:
    """Names nodes on which engines or fine-tunes could not start.

    Args:
        nodes: the nodes.
        engine: what the sweep's engines are.
        on_gpu: whether both go to nodes with GPUs alone.
    """

    def level(node: Node, module: str) -> Level:
        is_needed = (node.gpus or not on_gpu) and (module != "vllm" or engine == "vllm")
        return "problem" if is_needed else "warning"

    hints = {"vllm": f"{MEND}, or set evaluate.engine: transformers", "deepspeed": MEND}
    findings = [
        Finding(module, level(node, module), f"{node.name}: {module} {fault}; {hints[module]}")
        for node in nodes
        for module, fault in node.faults.items()
    ]
    return findings or [Finding("engines", "ok", "vLLM and DeepSpeed are on every node")]


def check_storage(nodes: Sequence[Node], storage: str) -> list[Finding]:
    """Names nodes that don't see the storage or can't write there."""
    if Path(storage).expanduser().resolve().is_relative_to(Path.cwd()) and "runtime_resources" in Path.cwd().parts:
        text = f"{storage} is in the job's own copy of its directory, which Ray deletes; give --storage a shared folder"
        return [Finding("storage", "problem", text)]
    mend = "mount the same file system at the same path on every node, writable for Ray's user"
    findings = [
        Finding("storage", "problem", f"{storage}: {node.name} {node.storage_fault}; {mend}")
        for node in nodes
        if node.storage_fault
    ]
    return findings or [Finding("storage", "ok", f"{storage} is seen and writable on {_count(nodes)}")]


def check_models_seen(nodes: Sequence[Node]) -> list[Finding]:
    """Names nodes that don't see a model's folder, such as the hub's cache on the driver's own disk."""
    return [
        Finding(
            "models",
            "problem",
            f"{node.name} does not see {', '.join(node.unseen_models)}; give folders on the shared storage, or set "
            "HF_HOME to a folder there on every node",
        )
        for node in nodes
        if node.unseen_models
    ]


def check_gpus(sweep: Sweep, nodes: Sequence[Node], most: float) -> list[Finding]:
    """Compares what a sweep asks for with the most that the cluster can have.

    Args:
        sweep: the sweep.
        nodes: the nodes.
        most: GPUs that there are or, by `cluster.gpus`, can be.
    """
    from safecomm.plan.plan import least_gpus

    if not most:
        return [Finding("GPUs", "ok", "none: the sweep runs on CPUs, as the lab's does")]
    needed = least_gpus(sweep, Outcomes(sweep, Profiles(sweep)))
    if needed > most:
        text = (
            f"the sweep needs {needed} at a time (cluster.target, cluster.judge, cluster.finetune.workers) and the "
            f"cluster has {most:g}; lower replicas, tensor_parallel or workers, or add GPUs; where it starts more when "
            "there is work for them, say how many in cluster.gpus"
        )
        return [Finding("GPUs", "problem", text)]
    kinds = Counter(gpu for node in nodes for gpu in node.gpus)
    names = ", ".join(f"{count} x {gpu}" for gpu, count in kinds.items()) or "none yet"
    return [Finding("GPUs", "ok", f"the sweep needs {needed}, the cluster can have {most:g}; now: {names}")]


def check_room(nodes: Sequence[Node]) -> list[Finding]:
    """Tells of nodes that are short of shared memory or disk."""
    findings = [
        Finding(subject, "warning", f"{node.name}: {have:.1f} GiB of {what}; below {least:g} GiB {consequence}")
        for node in nodes
        for subject, have, least, what, consequence in (
            ("/dev/shm", node.shm_gib, LEAST_SHM_GIB, "/dev/shm", "start containers with --shm-size"),
            ("disk", node.disk_gib, LEAST_DISK_GIB, "free disk in /tmp", "Ray can't spill"),
        )
        if have < least
    ]
    memory = ", ".join(f"{node.name}: {node.memory_gib:.0f} GiB" for node in nodes)
    return findings or [Finding("memory", "ok", f"{memory}; /dev/shm and disk suffice")]


def check_keys(nodes: Sequence[Node], sweep: Sweep | None, expected: Iterable[str] = ()) -> list[Finding]:
    """Tells which secrets the job lacks that it needs, or that are set where it was submitted.

    Args:
        nodes: the nodes.
        sweep: the sweep, if any.
        expected: names of the secrets that are set where the job was submitted.
    """
    lacking: dict[str, str] = {}
    without = [node.name for node in nodes if not node.has_key]
    asked = [*sweep.evaluate.judges, *([sweep.evaluate.grader] if sweep.evaluate.grader else [])] if sweep else []
    if without and (KEY in expected or any(judge.url for judge in asked)):
        lacking[KEY] = f"on {', '.join(without)}"
    for name in {"HF_TOKEN", "WANDB_API_KEY"} & set(expected):
        if not has_secret(name):
            lacking[name] = f"on {nodes[0].name}"
    mend = "set it in the environment of `ray start` on the nodes; a submission never carries secrets"
    return [Finding(name, "warning", f"is not set {where}; {mend}") for name, where in sorted(lacking.items())]


def has_secret(name: str) -> bool:
    """Returns whether this process has a secret, from its environment or from the file of a login."""
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
    """Whether a package is not of the pinned version; that vLLM is missing is told with the engines."""
    if package == "vllm" and package not in node.versions:
        return False
    parts = pin.split(".")
    return _version(node, package).partition("+")[0].split(".")[: len(parts)] != parts
