"""A run folder has at most one run at a time; the lock of a dead run is taken over by exactly one other."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safecomm.errors import SafecommError, StoppedError
from safecomm.storage.lock import HEARTBEAT_SECONDS, STALE_SECONDS
from safecomm.sweep.lock import RunLock, only_run

RUN = """
import sys
from pathlib import Path
from safecomm.errors import SafecommError
from safecomm.sweep.lock import only_run
print("ready", flush=True)
sys.stdin.readline()
try:
    with only_run(Path(sys.argv[1]), print):
        print("holds", flush=True)
        sys.stdin.readline()
except SafecommError as error:
    print("refused", error, flush=True)
"""


def start(folder: Path) -> "subprocess.Popen[str]":
    """A process that takes the lock at its first line of input and frees it at its second."""
    command = [sys.executable, "-c", RUN, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert said(process) == "ready"
    return process


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(*processes: "subprocess.Popen[str]") -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()


def lock_file(folder: Path) -> Path:
    (found,) = folder.glob(".lock.*")
    return found


def silent_for(folder: Path, seconds: float) -> None:
    lock = lock_file(folder)
    time = lock.stat().st_mtime - seconds
    os.utime(lock, (time, time))


def test_second_run_is_rejected_with_the_owner(tmp_path: Path) -> None:
    first, second = start(tmp_path), start(tmp_path)
    tell(first)
    assert said(first) == "holds"
    silent_for(tmp_path, STALE_SECONDS / 2)
    tell(second)
    assert f"process {first.pid} of" in (line := said(second)) and "started 20" in line
    assert f"last renewed its lock {STALE_SECONDS / 2:.0f} s ago" in line
    tell(first)
    assert first.wait(timeout=30) == 0
    with only_run(tmp_path, pytest.fail):
        pass


def test_lock_of_a_killed_run_is_taken_over_immediately(tmp_path: Path) -> None:
    first = start(tmp_path)
    tell(first)
    assert said(first) == "holds"
    first.kill()
    first.wait(timeout=30)
    lines: list[str] = []
    with only_run(tmp_path, lines.append):
        assert len(lines) == 1 and f"process {first.pid}" in lines[0] and "has died" in lines[0]


def test_expired_lock_of_another_machine_is_taken_over(tmp_path: Path) -> None:
    RunLock(tmp_path, pytest.fail)
    lock = lock_file(tmp_path)
    lock.write_text(json.dumps(json.loads(lock.read_text()) | {"host": "elsewhere", "pid": 2**22 + 1}))
    silent_for(tmp_path, STALE_SECONDS - HEARTBEAT_SECONDS)
    with pytest.raises(SafecommError, match="on elsewhere, started"):
        RunLock(tmp_path, pytest.fail)
    silent_for(tmp_path, STALE_SECONDS + HEARTBEAT_SECONDS)
    lines: list[str] = []
    RunLock(tmp_path, lines.append)
    assert len(lines) == 1 and "was silent for 1" in lines[0]


def test_reused_pid_does_not_hold_the_lock(tmp_path: Path) -> None:
    RunLock(tmp_path, pytest.fail)
    lock = lock_file(tmp_path)
    lock.write_text(json.dumps(json.loads(lock.read_text()) | {"started": 1e9}))
    RunLock(tmp_path, lambda line: None)


def test_one_of_many_concurrent_takeovers_wins(tmp_path: Path) -> None:
    RunLock(tmp_path, pytest.fail)
    silent_for(tmp_path, 2 * STALE_SECONDS)
    runs = [start(tmp_path) for _ in range(6)]
    tell(*runs)
    heard = []
    for run in runs:
        line = said(run)
        heard.append(said(run) if "taking over from" in line else line)
    assert heard.count("holds") == 1
    assert sum(line.startswith("refused") for line in heard) == 5
    tell(runs[heard.index("holds")])
    assert all(run.wait(timeout=30) == 0 for run in runs)


def test_stale_check_does_not_take_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RunLock(tmp_path, pytest.fail)
    silent_for(tmp_path, 2 * STALE_SECONDS)
    winners: list[RunLock] = []
    link = os.link

    def late(source: Path, target: Path) -> None:
        """Two runs come, and the first of them goes, between another's look and its link."""
        monkeypatch.setattr(os, "link", link)
        RunLock(tmp_path, lambda line: None).release()
        winners.append(RunLock(tmp_path, pytest.fail))
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(SafecommError, match="another `safecomm run`"):
        RunLock(tmp_path, lambda line: None)
    winners[0].heartbeat()
    assert not winners[0].is_lost


def test_run_detects_and_respects_a_takeover(tmp_path: Path) -> None:
    first = RunLock(tmp_path, pytest.fail)
    silent_for(tmp_path, 2 * STALE_SECONDS)
    second = RunLock(tmp_path, lambda line: None)
    first.heartbeat()
    assert first.is_lost
    first.release()
    second.heartbeat()
    assert not second.is_lost
    with pytest.raises(SafecommError, match="another"):
        RunLock(tmp_path, pytest.fail)


@pytest.fixture(params=[signal.SIG_IGN, signal.default_int_handler, lambda *_: None], ids=["job", "shell", "library"])
def handler(request: pytest.FixtureRequest) -> Iterator[Any]:
    """What is set for SIGINT before a run: ignored in the background, raises in a shell, a library's own."""
    before = signal.signal(signal.SIGINT, request.param)
    yield request.param
    signal.signal(signal.SIGINT, before)


def test_run_stops_when_it_loses_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, handler: Any) -> None:
    monkeypatch.setattr("safecomm.storage.lock.HEARTBEAT_SECONDS", 0.01)
    with pytest.raises(SafecommError, match="took over this folder"), only_run(tmp_path, pytest.fail):
        (tmp_path / f"{lock_file(tmp_path).name}9").write_text("{}")
        threading.Event().wait(5)
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, StoppedError])
def test_lock_is_released_on_errors(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), only_run(tmp_path, pytest.fail):
        raise error
    with only_run(tmp_path, pytest.fail):
        pass


def test_lock_is_renewed_while_a_run_continues(tmp_path: Path) -> None:
    lock = RunLock(tmp_path, pytest.fail)
    silent_for(tmp_path, 2 * STALE_SECONDS)
    lock.heartbeat()
    with pytest.raises(SafecommError, match="last renewed its lock 0 s ago"):
        RunLock(tmp_path, pytest.fail)


def test_unreadable_lock_holds_until_it_expires(tmp_path: Path) -> None:
    RunLock(tmp_path, pytest.fail)
    lock_file(tmp_path).write_text('{"host"')
    with pytest.raises(SafecommError, match="owner unknown"):
        RunLock(tmp_path, pytest.fail)
    silent_for(tmp_path, 2 * STALE_SECONDS)
    RunLock(tmp_path, lambda line: None)
