"""What one node has, as that node sees it."""

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

from safecomm.cluster.reach import ClusterError

GIB = 1024**3
IMPORT_SECONDS = 180.0
ANSWER_SECONDS = 60.0
"""Time for every node to look; a worker process starts in a second or two."""
KEY = "OPENAI_API_KEY"
"""The one secret that trials use, on whatever node they run; the others are the driver's."""
_PIN = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[[^]]*\])?==([0-9.]+?)(?:\.\*)?(?:$|;)")


@dataclass(frozen=True)
class NodeQuery:
    """What a node is to look at."""

    storage: str | None = None
    """The sweep's storage; a folder of ours in it, `probe`, is looked for."""
    probe: str = ""
    models: Sequence[str] = ()
    """Folders of models that it must see."""
    imports: bool = False
    """Import vLLM and DeepSpeed, which takes half a minute, instead of looking whether they are installed."""


@dataclass(frozen=True)
class Node:
    """What a node answered."""

    name: str
    python: str
    versions: dict[str, str]
    """Package -> version, of those that are pinned."""
    gpus: list[str]
    memory_gib: float
    shm_gib: float
    disk_gib: float
    """Free, where Ray keeps what does not fit into memory."""
    faults: dict[str, str] = field(default_factory=dict)
    """`vllm` or `deepspeed` -> why it can't be used."""
    storage_fault: str = ""
    unseen_models: list[str] = field(default_factory=list)
    has_key: bool = False


def inspect_node(name: str, query: NodeQuery) -> Node:
    """Looks at the machine that this runs on.

    Args:
        name: what the node is called.
        query: what to look at.
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
    """Returns the packages that the project pins, with the beginning of the version; none where it is not installed."""
    try:
        found = [_PIN.match(need.replace(" ", "")) for need in requires("safecomm") or []]
    except PackageNotFoundError:
        return {}
    return {match[1]: match[2] for match in found if match}


def leave_probe(storage: Path) -> str:
    """Makes a folder in the storage, for nodes to find and to write into; the caller removes it.

    Raises:
        ClusterError: where the driver itself can't write there.
    """
    probe = f".seen-{uuid.uuid4().hex}"
    try:
        (storage / probe).mkdir(parents=True)
    except OSError as error:
        raise ClusterError(f"storage: {storage}: can't be written to here ({error.strerror})") from error
    return probe


def _versions() -> dict[str, str]:
    installed = {}
    for package in pins():
        for name in (package, f"{package}-cpu"):  # vLLM's build for machines without a GPU
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
        return f"took more than {IMPORT_SECONDS:g} s to import"
    return "" if done.returncode == 0 else f"can't be imported: {done.stderr.strip().splitlines()[-1]}"


def _storage_fault(storage: Path, probe: str) -> str:
    if not (storage / probe).is_dir():
        return "does not see what the driver wrote there"
    try:
        (storage / probe / uuid.uuid4().hex).write_text("seen", encoding="utf-8")
    except OSError as error:
        return f"can't write there: {error.strerror}"
    return ""
