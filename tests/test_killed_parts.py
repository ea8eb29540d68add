"""A sweep whose ranks, trials, engines and nodes are killed gives the same results as an undisturbed one."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import yaml
from head_node import with_token
from ray_nodes import Nodes, cluster
from small_sweep import ONE_ARM, PATIENCE, comparable, offline, write_sweep

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.slow]

ENGINE = "ServeReplica:safecomm-target-"  # what follows is the job's
RANK, TRIAL, REPLICA = "ray::RayTrainWorker", "ray::ImplicitFunc", f"ray::{ENGINE}"


class Run:
    """A sweep that runs in a process of its own."""

    def __init__(self, sweep_file: Path, environment: dict[str, str], *options: str):
        self.folder = sweep_file.parent / "runs" / "small"
        self._log = sweep_file.with_suffix(".log")
        command = [sys.executable, "-m", "safecomm", "run", str(sweep_file), *options]
        with self._log.open("w") as log:
            self.driver = psutil.Popen(command, env=environment, stdout=log, stderr=log)

    @property
    def said(self) -> str:
        return self._log.read_text()

    def until(self, what: str, there: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE
        while not (found := there()):
            assert self.driver.poll() is None, f"it ended before {what}: {self.said}"
            assert time.monotonic() < deadline, f"{what} was not there in time: {self.said}"
            time.sleep(0.05)
        return found

    def has(self, pattern: str) -> list[Path]:
        return list(self.folder.parent.glob(pattern))

    def processes(self, name: str) -> list[psutil.Process]:
        return [one for one in self.driver.children(recursive=True) if _name(one).startswith(name)]

    def kill(self, name: str) -> None:
        self.until(name, lambda: self.processes(name))[-1].kill()

    def finish(self) -> pd.DataFrame:
        assert self.driver.wait(PATIENCE) == 0, self.said
        return comparable(self.folder / "trials.parquet")


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""


@contextmanager
def running(sweep_file: Path, environment: dict[str, str], *options: str) -> Iterator[Run]:
    run = Run(sweep_file, environment, *options)
    try:
        yield run
    finally:
        for process in [run.driver, *run.driver.children(recursive=True)] if run.driver.is_running() else []:
            process.kill()


def sweep_with(folder: Path, lab: dict[str, Path], **sections: object) -> Path:
    path = write_sweep(folder, lab, ONE_ARM)
    sweep = yaml.safe_load(path.read_text())
    for name, section in sections.items():
        sweep[name] = sweep.get(name, {}) | section
    path.write_text(yaml.safe_dump(sweep))
    return path


@pytest.mark.faults
def test_killed_rank_trial_and_engine_do_not_change_results(
    lab: dict[str, Path], tmp_path: Path, undisturbed: pd.DataFrame
) -> None:
    with running(sweep_with(tmp_path, lab, finetune={"save_every": 2}), offline()) as run:
        run.until(
            "a checkpoint", lambda: run.has("store/scratch/finetune-*-checkpoints/checkpoint-*/trainer_state.json")
        )
        run.kill(RANK)
        run.until("a trial of the search", lambda: run.has("small/trials/*-search.json"))
        run.kill(TRIAL)
        run.until("the trial's second try", lambda: "died; retrying" in run.said)
        before = len(run.has("small/trials/*-search.json"))
        run.until("another trial", lambda: len(run.has("small/trials/*-search.json")) > before)
        run.kill(REPLICA)
        pd.testing.assert_frame_equal(run.finish(), undisturbed)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return offline(**with_token(tmp_path_factory.mktemp("token")))


def used(nodes: Nodes, actor_class: str) -> set[str]:
    return {node for node, _ in nodes.where(actor_class)} - {""}  # some waited for a node in vain


def alive(nodes: Nodes, actor_class: str) -> set[str]:
    return {node for node, state in nodes.where(actor_class) if state == "ALIVE"}


@pytest.mark.cluster
def test_lost_nodes_do_not_change_results_and_a_late_node_is_used(
    lab: dict[str, Path], tmp_path: Path, environment: dict[str, str], undisturbed: pd.DataFrame
) -> None:
    placed = {"finetune": {"labels": {"train": "yes"}, "spread": True}, "target": {"labels": {"fleet": "yes"}}}
    with cluster(environment) as nodes:
        for name, label in (("first", "train"), ("second", "train"), ("third", "fleet")):
            nodes.start(name, **{label: "yes"})
        sweep_file = sweep_with(tmp_path, lab, cluster=placed)
        with running(sweep_file, environment, "--address", nodes.address) as run:
            run.until("ranks on two nodes", lambda: alive(nodes, "RayTrainWorker") == {"first", "second"})
            nodes.kill("second")
            nodes.start("late", train="yes", fleet="yes")
            run.until("a trial of the search", lambda: run.has("small/trials/*-search.json"))
            nodes.kill("third")
            found = run.finish()
        trained, served, refereed = (used(nodes, kind) for kind in ("RayTrainWorker", ENGINE, "StoppingActor"))
    pd.testing.assert_frame_equal(found, undisturbed)
    assert trained == {"first", "second", "late"}
    assert served == {"third", "late"}
    assert refereed == {"head"}
