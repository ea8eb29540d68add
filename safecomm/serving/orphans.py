"""Ends the processes that a killed replica leaves behind.

vLLM's engine core is a process of its own. It does not notice that a replica was killed with SIGKILL, e.g. for its
memory, and would keep the GPU from the replica's successor. Run as a script, this module waits for a process to end and
then kills the descendants that it had.
"""

import os
import subprocess
import sys
import time

import psutil

POLL_SECONDS = 1.0


def end_with_this_process() -> None:
    """Starts a watcher that ends this process's descendants after it, however it ends."""
    subprocess.Popen(
        [sys.executable, __file__, str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def watch(pid: int) -> None:
    """Waits for a process to end, then kills its descendants.

    Args:
        pid: the process.
    """
    descendants: set[psutil.Process] = set()
    try:
        process = psutil.Process(pid)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            descendants |= set(process.children(recursive=True))
            descendants = {one for one in descendants if one.is_running()}
            time.sleep(POLL_SECONDS)
    except psutil.NoSuchProcess:
        pass
    for one in descendants - {psutil.Process()}:
        try:
            one.kill()  # psutil compares the start time, so a reused id is safe
        except psutil.NoSuchProcess:
            continue


if __name__ == "__main__":
    watch(int(sys.argv[1]))
