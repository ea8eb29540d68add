"""Runs simulated sweeps on a cluster of several nodes with declared GPUs, all on this machine.

    python benchmarks/scale.py            4 nodes with 8 GPUs each, two and a half hours on 2 cores, 10 GB of memory
    python benchmarks/scale.py train      only the share of GPU time in use while eight fine-tunes of 8 ranks train
    python benchmarks/scale.py search     only that while 240 trials search
    python benchmarks/scale.py growth     only how overhead and the driver's memory grow, up to 1,000 trials
    python benchmarks/scale.py kills      only whether killed nodes, workers and drivers change the results

Engines and fine-tunes are simulated (`evaluate.engine: simulated`): they take the time of real ones on a scaled clock,
but compute nothing. All else is real: the driver, Ray Tune, Ray Train, Ray Serve, Ray Data, placement and the store.

`train`, `search`: GPU time in use is the time that the work takes at full speed on all GPUs, divided by the time that
it took.
`growth`: engines and fine-tunes take no time, so what is left is overhead.
`kills`: a node, a worker (a rank of a fine-tune, then an engine) and the driver are killed in each of the three phases.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import yaml
from rich.console import Console
from rich.table import Table

from safecomm.plan.data import split_prompts
from safecomm.serving.simulated_engine import answer_tokens
from safecomm.spec import Sweep, read_sweep

NODE_GPUS, NODE_CPUS = 8, 2
TRIALS_PER_ENGINE = 4
TOKENS = 24
INSTANT = {"clock": 1e9}
"""Engines and fine-tunes take no time."""
TRAIN = {"trained_tokens_per_second": 60.0}
"""Each of the eight fine-tunes takes nine minutes on eight GPUs; four run at a time."""
SEARCH = {"tokens_per_second": 160.0, "trained_tokens_per_second": 1e9}
"""240 trials of 400 prompts take about 34 minutes on four engines, at 13 answers a second each."""
SHORT = {"tokens_per_second": 1200.0, "trained_tokens_per_second": 3000.0}
NOISE = ["seconds", "log", "adapter_path"]
"""The columns of `trials.parquet` that are a matter of time or place."""
PARTS = ["train", "search", "growth", "kills"]
WORKERS = ("ray::RayTrainWorker", "ray::ServeReplica:safecomm-")
OBJECT_STORE = 10**8
PATIENCE = 1800.0


@dataclass(frozen=True)
class Usage:
    """A finished sweep: what it did, how long it took, and its driver's memory."""

    trials: int
    prompts: int
    """All answers of the search."""
    train_seconds: float
    search_seconds: float
    train_busy: float
    """Share of the cluster's GPU time that the fine-tunes used, while there were any."""
    search_busy: float
    """Share of the engines' time in use during the search."""
    planned_gpu_hours: float
    """Of the search and the fine-tunes, in simulated time."""
    used_gpu_hours: float
    driver_mib: float
    """Peak resident memory."""
    stored_files: int

    @property
    def overhead(self) -> float:
        """Seconds per trial of the search."""
        return self.search_seconds / self.trials


class SimulatedCluster:
    """Ray nodes on this machine that declare GPUs."""

    def __init__(self, nodes: int):
        """Starts a head without GPUs, and the nodes."""
        # Each worker process takes seconds of this machine's time to start. So none starts in advance, few start at a
        # time (Ray's limit is the node's CPUs), and none is ended while idle, as none is on a node with many CPUs.
        os.environ |= {
            "RAY_enable_worker_prestart": "0",
            "RAY_prestart_worker_first_driver": "0",
            "RAY_kill_idle_workers_interval_ms": "0",
        }
        from ray.cluster_utils import Cluster

        head = {
            "num_cpus": NODE_CPUS,
            "object_store_memory": OBJECT_STORE,
            "include_dashboard": True,
            "dashboard_port": 8399,
        }
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._nodes = [self._add() for _ in range(nodes)]
        self.gpus = nodes * NODE_GPUS

    @property
    def address(self) -> str:
        """The address for `--address`."""
        return str(self._cluster.address)

    def replace_node(self) -> None:
        """Kills a node at once and adds a new one."""
        self._cluster.remove_node(self._nodes.pop(0), allow_graceful=False)
        self._nodes.append(self._add())

    def stop(self) -> None:
        """Stops all nodes, and a sweep that was interrupted."""
        self._cluster.shutdown()
        for process in psutil.Process().children(recursive=True):
            process.kill()

    def _add(self) -> Any:
        return self._cluster.add_node(num_cpus=NODE_CPUS, num_gpus=NODE_GPUS, object_store_memory=OBJECT_STORE)


class Run:
    """A sweep in a process of its own."""

    def __init__(self, sweep: Sweep, file: Path, address: str):
        """Starts the sweep of a file."""
        self.folder = Path(sweep.storage) / sweep.name
        self.log = file.with_suffix(".log")
        command = [sys.executable, "-m", "safecomm", "run", str(file), "--address", address]
        with self.log.open("a") as log:
            self.driver = psutil.Popen(command, stdout=log, stderr=log, env=os.environ | {"HF_HUB_OFFLINE": "1"})
        self.peak_bytes = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def finish(self) -> pd.DataFrame:
        """Waits for the end and returns the trials."""
        if self.driver.wait():
            raise SystemExit(f"the sweep failed: {self.log.read_text()[-2000:]}")
        return pd.read_parquet(self.folder / "trials.parquet")

    def until(self, what: str, happened: Callable[[], Any]) -> None:
        """Waits until something has happened in the run."""
        deadline = time.monotonic() + PATIENCE
        while not happened():
            if self.driver.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{what} did not happen: {self.log.read_text()[-2000:]}")
            time.sleep(0.05)

    def kill(self) -> None:
        """Kills the driver, and nothing else."""
        self.driver.kill()
        self.driver.wait()

    def is_in(self, phase: str) -> bool:
        """Returns whether a phase has begun and its ranks or engines are up."""
        return any(self.folder.glob(f"tune/{phase}/*/stderr")) and bool(workers())

    def _watch(self) -> None:
        while self.driver.poll() is None:
            try:
                self.peak_bytes = max(self.peak_bytes, self.driver.memory_info().rss)
            except psutil.NoSuchProcess:
                return
            time.sleep(0.2)


def study(name: str, folder: Path, gpus: int, trials: int, prompts: int, speed: dict[str, float]) -> Sweep:
    """Returns a sweep with one arm and eight fine-tunes of equal length.

    Args:
        name: the name of its folder.
        folder: the folder of all sweeps of this benchmark.
        gpus: GPUs of the cluster; an engine takes a node, and so does a fine-tune.
        trials: points of the search.
        prompts: prompts of each trial.
        speed: the `simulation` section.
    """
    benchmark = folder / f"prompts-{prompts}.jsonl"
    if not benchmark.exists():
        texts = (f"Describe how to disturb cell number {number}." for number in range(2 * prompts))
        benchmark.write_text("\n".join(json.dumps({"prompt": text}) for text in texts))
    ranks = {"grid": [2, 4, 6, 8, 12, 24]}  # with the plain fine-tune and the safe adapter, eight: two for each node
    points = {"lowest": {"randint": [1, 28]}, "weight": {"uniform": [0.3, 0.9]}}
    sections: dict[str, Any] = {
        "name": "scale",
        "model": {"base": "lab://base", "aligned": "lab://aligned"},
        "finetune": {
            "data": ["lab-telecom"],
            "safe_adapter": {"data": "lab-safety", "epochs": 3.148, "learning_rate": 1e-3},  # as many tokens
            "epochs": 1,
            "batch_size": 16,
        },
        "arms": {"safe_merge": [{"finetune": {"rank": ranks}}, {"safe_merge": points}]},
        "evaluate": {
            "red_team": [{"name": "cells", "path": str(benchmark), "prompt": "prompt"}],
            "task": [{"name": "lab-telecom", "limit": 40}],
            "engine": "simulated",
            "max_new_tokens": TOKENS,
            "max_model_len": 256,
        },
        "search": {"trials": trials, "racing": False},
        "cluster": {
            "phased": True,
            "finetune": {"workers": NODE_GPUS},
            "target": {"replicas": gpus // NODE_GPUS, "tensor_parallel": NODE_GPUS},
            "concurrent_trials": TRIALS_PER_ENGINE * (gpus // NODE_GPUS),
        },
        "simulation": speed,
        "tracking": {"wandb": None},
        "storage": str(folder / name),
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(sections))
    return read_sweep(file)


def usage(run: Run, sweep: Sweep, trials: pd.DataFrame, gpus: int) -> Usage:
    """Measures a finished sweep from its records, whose files' times are the ends of the trials."""
    speed, engines = sweep.speed, sweep.cluster.target.replicas
    assert speed
    prompts = split_prompts(sweep, "search")
    tokens = sum(answer_tokens(prompt.text, TOKENS, bool(prompt.options)) for prompt in prompts)
    tokens += sum(not prompt.options for prompt in prompts)  # an answer's surprisal is read in the time of one token
    searched = int((trials["split"] == "search").sum())
    searching, training = (duration(run.folder, split) for split in ("search", "train"))
    store = Path(sweep.storage) / "store"
    trained = [json.loads(path.read_text()) for path in store.glob("finetune/*/training.json")]
    phases = json.loads((run.folder / "plan.json").read_text())["phases"]
    return Usage(
        trials=searched,
        prompts=searched * len(prompts),
        train_seconds=training,
        search_seconds=searching,
        train_busy=sum(one["seconds"] * one["ranks"] for one in trained) / (gpus * training),
        search_busy=searched * tokens / speed.tokens_per_second / speed.clock / (engines * searching),
        planned_gpu_hours=sum(phase["hours"] * phase["gpus_in_use"] for phase in phases[:2]),
        used_gpu_hours=(training + searching) * speed.clock * gpus / 3600,
        driver_mib=run.peak_bytes / 2**20,
        stored_files=sum(path.is_file() for path in store.rglob("*")),
    )


def duration(folder: Path, split: str) -> float:
    """Returns the seconds from the start of a phase's first trial to the end of its last."""
    ended = {path: path.stat().st_mtime for path in folder.glob(f"trials/*-{split}.json")}
    started = [end - json.loads(path.read_text())["seconds"] for path, end in ended.items()]
    return max(ended.values()) - min(started)


def measured(
    name: str, folder: Path, cluster: SimulatedCluster, trials: int, prompts: int, speed: dict[str, float]
) -> Usage:
    """Runs a sweep and measures it."""
    sweep = study(name, folder, cluster.gpus, trials, prompts, speed)
    run = Run(sweep, folder / f"{name}.yaml", cluster.address)
    return usage(run, sweep, run.finish(), cluster.gpus)


def train(folder: Path, cluster: SimulatedCluster) -> list[Usage]:
    """Measures the GPU time in use by fine-tunes."""
    return [measured("train", folder, cluster, 4, 1000, TRAIN)]


def search(folder: Path, cluster: SimulatedCluster) -> list[Usage]:
    """Measures the GPU time in use by 240 trials of 400 prompts."""
    return [measured("search", folder, cluster, 240, 400, SEARCH)]


def growth(folder: Path, cluster: SimulatedCluster, counts: list[int]) -> list[Usage]:
    """Measures the overhead of searches with different numbers of trials, each of 1,000 prompts."""
    return [measured(f"growth-{count}", folder, cluster, count, 1000, INSTANT) for count in counts]


def kills(folder: Path, cluster: SimulatedCluster) -> dict[str, bool]:
    """Returns for every kind of process whether killing one in each phase leaves the results unchanged."""
    actions: dict[str, Callable[[Run], object]] = {
        "node": lambda run: cluster.replace_node(),
        "worker": lambda run: workers()[-1].kill(),
        "driver": lambda run: run.kill(),
    }
    undisturbed = disturbed("undisturbed", folder, cluster, lambda run: None)
    return {name: undisturbed.equals(disturbed(name, folder, cluster, kill)) for name, kill in actions.items()}


def disturbed(name: str, folder: Path, cluster: SimulatedCluster, kill: Callable[[Run], object]) -> pd.DataFrame:
    """Runs a sweep, kills something in each of its phases, and returns the trials without times and places."""
    sweep = study(name, folder, cluster.gpus, 24, 400, SHORT)
    run = Run(sweep, folder / f"{name}.yaml", cluster.address)
    for phase in ("train", "search", "report"):
        run.until(f"{name}: the phase {phase}", partial(run.is_in, phase))
        kill(run)
        if run.driver.poll() is not None:
            run = Run(sweep, folder / f"{name}.yaml", cluster.address)
    trials = run.finish().drop(columns=NOISE)
    return trials.sort_values(["split", "arm", "trial"], ignore_index=True)


def workers() -> list[psutil.Process]:
    """Returns the processes of ranks and engines."""
    return [one for one in psutil.Process().children(recursive=True) if _name(one).startswith(WORKERS)]


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""


def usage_table(rows: list[Usage]) -> Table:
    """Returns the measurements as a table."""
    table = Table("trials", "answers", "training busy", "search busy", "GPU-hours planned", "used", "driver", "files")
    table.add_column("seconds per trial")
    for one in rows:
        table.add_row(
            f"{one.trials:,}",
            f"{one.prompts:,}",
            f"{one.train_busy:.1%}",
            f"{one.search_busy:.1%}",
            f"{one.planned_gpu_hours:.2f}",
            f"{one.used_gpu_hours:.2f}",
            f"{one.driver_mib:.0f} MiB",
            f"{one.stored_files:,}",
            f"{one.overhead:.2f}",
        )
    return table


def main() -> None:
    """Runs the chosen parts and prints their results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--counts", type=int, nargs="+", default=[24, 100, 240, 1000], help="trials of `growth`")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    console, found = Console(stderr=options.json), dict[str, Any]()
    cluster = SimulatedCluster(options.nodes)
    try:
        with tempfile.TemporaryDirectory(prefix="scale-") as folder:
            for name, part in (("train", train), ("search", search)):
                if name in options.parts:
                    found[name] = part(Path(folder), cluster)
                    console.print(usage_table(found[name]))
            if "growth" in options.parts:
                found["growth"] = growth(Path(folder), cluster, options.counts)
                console.print(usage_table(found["growth"]))
            if "kills" in options.parts:
                found["kills"] = kills(Path(folder), cluster)
                for name, same in found["kills"].items():
                    console.print(f"killed {name} in every phase: {'the same results' if same else 'OTHER RESULTS'}")
    finally:
        cluster.stop()
    if options.json:
        print(json.dumps(found, default=asdict))


if __name__ == "__main__":
    main()
