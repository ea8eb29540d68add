"""A Ray cluster of several local nodes with a token, whose nodes can be killed."""

import json
import shutil
import signal
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from head_node import RAY
from ports import free_port

PATIENCE = 120.0
STORE_BYTES = 100_000_000


class Nodes:
    """The nodes of one cluster, each a `ray start --block` of its own."""

    def __init__(self, environment: dict[str, str]):
        """Takes the environment of the nodes, with the token in it."""
        # No workers in advance: they take seconds of processor time each.
        self._environment = environment | {"RAY_enable_worker_prestart": "0", "RAY_prestart_worker_first_driver": "0"}
        self._temporary = Path(tempfile.mkdtemp(prefix="nodes-"))  # short: it holds the names of sockets
        self._running: dict[str, psutil.Popen] = {}
        self.address = f"127.0.0.1:{free_port()}"
        self.dashboard = f"http://127.0.0.1:{free_port()}"

    def start(self, name: str, **labels: str) -> None:
        """Starts a node, the first as the head; its label `name` is its name."""
        head = ["--head", "--port", self.address.rpartition(":")[2], "--dashboard-host=127.0.0.1"]
        head += ["--dashboard-port", self.dashboard.rpartition(":")[2]]
        node = ["--node-ip-address=127.0.0.1", "--num-cpus=8", f"--object-store-memory={STORE_BYTES}"]
        node += ["--dashboard-agent-listen-port", str(free_port()), "--metrics-export-port", str(free_port())]
        node += ["--labels", ",".join(f"{key}={value}" for key, value in {"name": name, **labels}.items())]
        node += ["--temp-dir", str(self._temporary / name)]
        which = ["--address", self.address] if self._running else head
        with (self._temporary / f"{name}.log").open("w") as log:
            command = [RAY, "start", "--block", *which, *node]
            self._running[name] = psutil.Popen(
                command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + PATIENCE
        while name not in self.alive():
            assert self._running[name].poll() is None, (self._temporary / f"{name}.log").read_text()
            assert time.monotonic() < deadline, f"the node {name} did not start"
            time.sleep(0.5)

    def kill(self, name: str) -> None:
        """Kills all of a node at once, as a power cut does."""
        parent = self._running.pop(name)
        everything = [parent, *parent.children(recursive=True)]
        for number in (signal.SIGSTOP, signal.SIGKILL):  # first stopped: none sees another die
            for process in everything:
                _send(process, number)
        parent.wait()

    def stop(self) -> None:
        """Ends the nodes, the head last."""
        for name in reversed(list(self._running)):
            self.kill(name)
        shutil.rmtree(self._temporary, ignore_errors=True)

    def alive(self) -> set[str]:
        """Returns the names of the nodes that the head knows to be alive."""
        return {name for name, alive in self._listed().values() if alive}

    def _listed(self) -> dict[str, tuple[str, bool]]:
        return {
            node["node_id"]: (node["labels"].get("name", ""), node["state"] == "ALIVE") for node in self._list("nodes")
        }

    def where(self, actor_class: str) -> list[tuple[str, str]]:
        """Returns the node and the state of every actor, that there is or was, of the classes that begin so."""
        names = {node: name for node, (name, _) in self._listed().items()}
        return [
            (names.get(actor["node_id"], ""), actor["state"])
            for actor in self._list("actors")
            if actor["class_name"].startswith(actor_class)
        ]

    def _list(self, kind: str) -> list[dict[str, Any]]:
        """Asks the head's dashboard, as `ray list` does, which takes seconds to start."""
        token = Path(self._environment["RAY_AUTH_TOKEN_PATH"]).read_text()
        url = f"{self.dashboard}/api/v0/{kind}?limit=1000&detail=1"
        try:
            asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
            with urllib.request.urlopen(asked, timeout=30) as answer:
                listed: list[dict[str, Any]] = json.load(answer)["data"]["result"]["result"]
        except OSError:  # not up yet
            return []
        return listed


def _send(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


@contextmanager
def cluster(environment: dict[str, str]) -> Iterator[Nodes]:
    """Runs a cluster that has its head alone at first; the head gets no label but its name."""
    nodes = Nodes(environment)
    try:
        nodes.start("head")
        yield nodes
    finally:
        nodes.stop()
