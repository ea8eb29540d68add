"""Inspects the node that this process runs on."""

import os
import platform
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

from safecomm.cluster.reachable import ClusterError

GIB = 1024**3
IMPORT_SECONDS = 180.0
ANSWER_SECONDS = 60.0
"""Timeout for all nodes to answer; starting a worker process takes a second or two."""
KEY = "OPENAI_API_KEY"
"""The only secret that trials need, on any node; the driver needs the others."""
_PIN = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[[^]]*\])?==([0-9.]+?)(?:\.\*)?(?:$|;)")


@dataclass(frozen=True)
class NodeQuery:
    """What to check on a node."""

    storage: str | None = None
    """The sweep's storage; the node must see the driver's folder `probe` in it."""
    probe: str = ""
    models: Sequence[str] = ()
    """Model folders that the node must see."""
    imports: bool = False
    """Whether to import vLLM and DeepSpeed (half a minute) instead of only checking that they are installed."""


@dataclass(frozen=True)
class Node:
    """The state of a node."""

    name: str
    python: str
    versions: dict[str, str]
    """Package -> installed version, for pinned packages."""
    gpus: list[str]
    memory_gib: float
    shm_gib: float
    disk_gib: float
    """Free space where Ray spills objects."""
    faults: dict[str, str] = field(default_factory=dict)
    """`vllm` or `deepspeed` -> why it is unusable."""
    storage_fault: str = ""
    unseen_models: list[str] = field(default_factory=list)
    has_key: bool = False


def inspect_node(name: str, query: NodeQuery) -> Node:
    """Inspects the machine that this function runs on.

    Args:
        name: the node's name.
        query: what to check.
    """
    shm = Path("/dev/shm")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Node(
        name=name,
        python=platform.python_version(),
        versions=_versions(),
        gpus=_gpus(),
        memory_gib=memory / GIB,
        shm_gib=shutil.disk_usage(shm).total / GIB if shm.is_dir() else 0.0,
        disk_gib=shutil.disk_usage("/tmp").free / GIB,
        faults={module: fault for module in ("vllm", "deepspeed") if (fault := _fault(module, query.imports))},
        storage_fault=_storage_fault(Path(query.storage), query.probe) if query.storage else "",
        unseen_models=[model for model in query.models if not (Path(model) / "config.json").is_file()],
        has_key=bool(os.environ.get(KEY)),
    )


def pins() -> dict[str, str]:
    """Returns package -> pinned version prefix; empty if safecomm is not installed."""
    try:
        found = [_PIN.match(need.replace(" ", "")) for need in requires("safecomm") or []]
    except PackageNotFoundError:
        return {}
    return {match[1]: match[2] for match in found if match}


def leave_probe(storage: Path) -> str:
    """Creates a folder in the storage for nodes to find and write to; the caller removes it.

    Raises:
        ClusterError: if the driver can't write there.
    """
    probe = f".seen-{uuid.uuid4().hex}"
    try:
        (storage / probe).mkdir(parents=True)
    except OSError as error:
        raise ClusterError(f"storage: {storage}: is not writable on the driver ({error.strerror})") from error
    return probe


def _versions() -> dict[str, str]:
    installed = {}
    for package in pins():
        for name in (package, f"{package}-cpu"):  # vLLM's CPU build
            try:
                installed[package] = version(name)
            except PackageNotFoundError:
                continue
    return installed


def _gpus() -> list[str]:
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return found.stdout.splitlines() if found.returncode == 0 else []


def _fault(module: str, imports: bool) -> str:
    if find_spec(module) is None:
        return "is not installed"
    if not imports:
        return ""
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"import {module}"], capture_output=True, text=True, timeout=IMPORT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"took longer than {IMPORT_SECONDS:g} s to import"
    return "" if done.returncode == 0 else f"can't be imported: {done.stderr.strip().splitlines()[-1]}"


def _storage_fault(storage: Path, probe: str) -> str:
    if not (storage / probe).is_dir():
        return "does not see the driver's files there"
    try:
        (storage / probe / uuid.uuid4().hex).write_text("seen", encoding="utf-8")
    except OSError as error:
        return f"can't write there: {error.strerror}"
    return ""
