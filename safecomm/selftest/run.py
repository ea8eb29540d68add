"""Runs the self-test: every check on one node of each kind, in a temporary folder that is removed afterwards."""

import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten

from safecomm.cluster.session import ray_session
from safecomm.errors import SafecommError, UsageError
from safecomm.selftest.bench import Bench
from safecomm.selftest.checks import CHECKS, Check
from safecomm.selftest.models import Files
from safecomm.selftest.nodes import Node, nodes_to_test
from safecomm.selftest.report import Record
from safecomm.selftest.sizes import sizes_for

Say = Callable[[str], None]
LONGEST_REASON = 300
"""Characters."""


def selftest(address: str | None, storage: Path | None, say: Say) -> list[Record]:
    """Tests this machine, or one node of each kind of a cluster.

    Args:
        address: the cluster's address; None for this machine.
        storage: a folder on a disk that all nodes share; None for this machine's folder for temporary files.
        say: receives lines of progress.

    Raises:
        UsageError: if the storage can't be used.
        ClusterError: if the cluster can't be reached.
    """
    with _scratch(storage) as folder, ray_session(address):
        records = []
        for number, node in enumerate(_nodes(say)):
            files = Files(folder / str(number))
            files.folder.mkdir()
            records += examine(Bench(node, sizes_for(node.gpus), files, say))
            shutil.rmtree(files.folder, ignore_errors=True)
    return records


def examine(bench: Bench, checks: Sequence[Check] = CHECKS) -> list[Record]:
    """Runs the checks on one node; a check that fails only prevents those that need it."""
    node = f"{bench.node.kind} ({bench.node.address})"
    bench.say(f"{node}:")
    records: dict[str, Record] = {}
    try:
        for check in checks:
            if check.gpus > max(1, bench.node.gpus):  # on nodes without GPUs, checks for one GPU run on the CPU
                continue
            reason = _reason_to_skip(check, bench.node, records)
            record = Record(node, check.name, "skipped", reason) if reason else _run(check, node, bench)
            bench.say(f"  {check.name}: {record.result}" + ("" if reason else f" ({record.seconds:.0f} s)"))
            records[check.name] = record
    except KeyboardInterrupt:
        bench.say("interrupted; stopping the engines and removing the files")
        raise
    finally:
        bench.stop()
    return list(records.values())


def reason_of(error: BaseException) -> str:
    """Returns the reason of a failure in one line, without Ray's wrapping."""
    while isinstance(cause := getattr(error, "cause", None), BaseException):
        error = cause
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    if isinstance(error, SafecommError):
        return lines[-1]
    is_rays = type(error).__module__.startswith("ray.")  # Ray's messages end with advice
    return shorten(f"{type(error).__name__}: {lines[0 if is_rays else -1]}".removesuffix(": "), LONGEST_REASON)


def _reason_to_skip(check: Check, node: Node, records: dict[str, Record]) -> str:
    if missing := [name for name in check.needs if records[name].status != "ok"]:
        return f"needs {', '.join(missing)}"
    if node.gpus and node.free_gpus < check.gpus:
        return f"needs {check.gpus} of the node's {node.gpus} GPUs, of which {node.free_gpus} are free"
    return ""


def _run(check: Check, node: str, bench: Bench) -> Record:
    bench.say(f"  {check.name} ...")
    started = time.monotonic()
    try:
        found = check.run(bench)
    except Exception as error:  # any error is the result of the check
        seconds = time.monotonic() - started
        return Record(node, check.name, "failed", reason_of(error), seconds, trace=traceback.format_exc())
    seconds = time.monotonic() - started
    figures = (found.memory, found.planned, found.tokens_per_second)
    return Record(node, check.name, "ok", found.text, seconds, *figures)


def _nodes(say: Say) -> list[Node]:
    import ray
    from ray._private.state import available_resources_per_node

    nodes = ray.nodes()
    chosen = nodes_to_test(nodes, available_resources_per_node())
    alive = sum(node["Alive"] for node in nodes)
    if alive > 1:
        say(f"{alive} nodes; testing one of each kind: {'; '.join(node.kind for node in chosen)}")
    return chosen


@contextmanager
def _scratch(storage: Path | None) -> Iterator[Path]:
    """Creates a temporary folder and removes it afterwards."""
    try:
        if storage:
            storage.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="selftest-", dir=storage))
    except OSError as error:
        raise UsageError(f"--storage {storage}: not writable: {error.strerror}; choose another folder") from error
    folder.chmod(0o755)  # other nodes' processes may belong to another user
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
