"""A sweep in a bucket gives the same results as in a folder, and any node can resume it."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from s3_server import KEY, access, new_bucket
from small_sweep import ONE_ARM, PATIENCE, comparable, offline, write_sweep

from safecomm.storage.bucket import Bucket
from safecomm.storage.shared import CACHE

pytestmark = [pytest.mark.ray, pytest.mark.vllm, pytest.mark.slow, pytest.mark.cluster]


def safecomm(*words: str, **environment: str) -> str:
    command = [sys.executable, "-m", "safecomm", *words]
    done = subprocess.run(command, env=offline(**environment), capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@dataclass
class InBucket:
    """The sweep, run with its storage in a bucket."""

    sweep: Path
    bucket: str
    nodes: Path
    """What the nodes have, a folder a node."""
    access: dict[str, str]
    said: str = ""

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/team/runs"

    def safecomm(self, node: str, *words: str) -> str:
        return safecomm(*words, **self.access, **{CACHE: str(self.nodes / node)})

    def run(self, node: str) -> str:
        return self.safecomm(node, "run", str(self.sweep), "--storage", self.url)

    def folder(self, node: str) -> Path:
        return self.nodes / node / f"s3@{self.bucket}" / "team" / "runs"


@pytest.fixture(scope="module")
def in_bucket(lab: dict[str, Path], s3_url: str, tmp_path_factory: pytest.TempPathFactory) -> InBucket:
    folder = tmp_path_factory.mktemp("bucket")
    made = InBucket(write_sweep(folder, lab, ONE_ARM), new_bucket(s3_url), folder / "nodes", access(s3_url))
    made.said = made.run("head")
    return made


def objects(run: InBucket, monkeypatch: pytest.MonkeyPatch, below: str) -> dict[str, tuple[int, int]]:
    """Returns the objects below a prefix, with size and time."""
    for name, value in run.access.items():
        monkeypatch.setenv(name, value)
    bucket = Bucket("s3", run.bucket)
    folders = {name.rpartition("/")[0] for name in bucket.names(f"team/runs/{below}")}
    return {f"{folder}/{name}": state for folder in folders for name, state in bucket.files(folder).items()}


def test_trials_match_those_of_a_folder_sweep(in_bucket: InBucket, undisturbed: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(comparable(in_bucket.folder("head") / "small" / "trials.parquet"), undisturbed)


def test_logs_in_the_table_are_in_the_bucket(in_bucket: InBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in in_bucket.access.items():
        monkeypatch.setenv(name, value)
    bucket, logs = (
        Bucket("s3", in_bucket.bucket),
        pd.read_parquet(in_bucket.folder("head") / "small" / "trials.parquet"),
    )
    assert [log for log in logs["log"] if not bucket.has(log.removeprefix(f"{bucket.url}/"))] == []


def test_node_with_empty_cache_recomputes_nothing(in_bucket: InBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    before = objects(in_bucket, monkeypatch, "store")
    said = in_bucket.run("another")
    assert "started" not in said
    assert objects(in_bucket, monkeypatch, "store") == before
    trials = [pd.read_parquet(in_bucket.folder(node) / "small" / "trials.parquet") for node in ("head", "another")]
    pd.testing.assert_frame_equal(*trials)


def test_missing_record_repeats_only_its_trial(in_bucket: InBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver's node died, and another goes on: the lost trial finds its stages in the bucket."""
    for name, value in in_bucket.access.items():
        monkeypatch.setenv(name, value)
    bucket, trials = Bucket("s3", in_bucket.bucket), "team/runs/small/trials"
    lost = next(name for name in bucket.files(trials) if "safe_lora" in name and "search" in name)
    bucket.remove(f"{trials}/{lost}")
    before = {name for name in objects(in_bucket, monkeypatch, "store") if name.endswith("lineage.json")}
    in_bucket.run("third")
    assert lost in bucket.files(trials)
    assert {name for name in objects(in_bucket, monkeypatch, "store") if name.endswith("lineage.json")} == before


def test_finished_run_is_reported_and_exported_by_url(in_bucket: InBucket, tmp_path: Path) -> None:
    run = f"{in_bucket.url}/small"
    assert "safe_lora" in in_bucket.safecomm("laptop", "report", run)
    in_bucket.safecomm("laptop", "export", run, "--arm", "safe_lora", "--out", str(tmp_path / "out"))
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()


def test_no_credential_is_in_any_file_or_object(in_bucket: InBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    assert KEY not in in_bucket.said
    for path in in_bucket.nodes.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path
    for name, value in in_bucket.access.items():
        monkeypatch.setenv(name, value)
    bucket = Bucket("s3", in_bucket.bucket)
    for name in bucket.names("team"):
        if found := bucket.read(name):  # pyarrow's marks of folders are listed, but can't be read
            assert KEY.encode() not in found[0], name
