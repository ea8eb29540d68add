"""The processes that a replica started end with it, even if it is killed."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from serving_helpers import SETTINGS

SLEEP = "import time; time.sleep(600)"
REPLICA = f"""
import subprocess, sys, time
from safecomm.serving.orphans import end_with_this_process
end_with_this_process()
subprocess.Popen([sys.executable, "-c", {SLEEP!r}])
time.sleep(600)
"""
ENGINE = """
import sys, time
from safecomm.serving.engine import EngineSettings
from safecomm.serving.fleet import Replica
if __name__ == "__main__":
    replica = Replica("vllm", sys.argv[1], {settings!r})
    print("ready", flush=True)
    time.sleep(600)
"""


def comes_true(condition: Callable[[], object], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_the_descendants_of_a_killed_process_are_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", REPLICA]) as replica:
        started = psutil.Process(replica.pid)
        assert comes_true(lambda: len(started.children()) == 2)
        children = started.children()
        time.sleep(3)  # the watcher has to see the child
        replica.kill()
    assert comes_true(lambda: not any(child.is_running() for child in children))


@pytest.mark.vllm
@pytest.mark.slow
def test_the_engine_of_a_killed_replica_ends(lab: dict[str, Path], tmp_path: Path) -> None:
    script = tmp_path / "replica.py"
    script.write_text(ENGINE.format(settings=vars(SETTINGS)))
    command = [sys.executable, str(script), str(lab["aligned"])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as replica:
        assert replica.stdout and any("ready" in line for line in replica.stdout)
        children = psutil.Process(replica.pid).children(recursive=True)
        assert any("EngineCore" in child.name() for child in children)
        time.sleep(3)
        replica.kill()
    assert comes_true(lambda: not any(child.is_running() for child in children))
