"""A run in a bucket: nodes share records, answers and profiles."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from small_sweep import write_sweep
from typer.testing import CliRunner

from safecomm.cli import app
from safecomm.errors import SafecommError, StorageError, TrainingError
from safecomm.search.arms import Trial
from safecomm.search.fine_tunes import fine_tunes_of
from safecomm.search.profile_cache import ProfileCache
from safecomm.search.record import TrialRecord
from safecomm.search.run_folder import RunFolder
from safecomm.serving.engine import Question
from safecomm.serving.responses import Responses
from safecomm.spec import Sweep, read_sweep
from safecomm.statistics.selection import ModuleProfile
from safecomm.storage import shared
from safecomm.storage.bucket import Bucket
from safecomm.storage.store import Store
from safecomm.sweep.lock import only_run

TRIAL = Trial("safe_lora", {"safe_lora.lowest": 2}, (("safe_lora", {"lowest": 2}),), 0, "search")


@pytest.fixture
def move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Goes to another node: with copies of its own, or none."""
    return lambda node: monkeypatch.setenv(shared.CACHE, str(tmp_path / node))


@pytest.fixture
def sweep(tmp_path: Path, bucket: str) -> Sweep:
    models = {"base": tmp_path / "base", "aligned": tmp_path / "aligned"}
    return read_sweep(write_sweep(tmp_path, models), [f"storage={bucket}"])


def objects(url: str) -> tuple[Bucket, str]:
    name, _, prefix = url.removeprefix("s3://").partition("/")
    return Bucket("s3", name), prefix


def test_records_are_readable_on_other_nodes(sweep: Sweep, move: Callable[[str], None]) -> None:
    RunFolder(sweep).keep(TrialRecord.of(TRIAL, "done", seconds=0.5))
    move("driver")
    folder = RunFolder(sweep)
    assert folder.find(TRIAL) is None
    folder.fetch()
    assert (found := folder.find(TRIAL)) and found.seconds == 0.5
    move("node")
    RunFolder(sweep).keep(TrialRecord.of(TRIAL, "done", seconds=0.7))
    move("driver")
    folder.fetch()
    assert (found := folder.find(TRIAL)) and found.seconds == 0.7


def test_objects_removed_from_the_bucket_are_removed_on_nodes(sweep: Sweep) -> None:
    folder = RunFolder(sweep)
    folder.keep(TrialRecord.of(TRIAL, "done"))
    (folder.path / "optuna.journal").write_text("proposals")
    (folder.path / "wandb").mkdir()
    bucket, prefix = objects(sweep.storage)
    bucket.remove(f"{prefix}/small/trials/{folder.record_path(TRIAL).name}")
    folder.fetch()
    assert folder.find(TRIAL) is None
    assert not (folder.path / "optuna.journal").exists()  # Optuna's: it would tell of trials that are gone
    assert (folder.path / "wandb").is_dir()


def test_fine_tune_failure_on_another_node_fails_its_trials(sweep: Sweep, move: Callable[[str], None]) -> None:
    RunFolder(sweep).keep(TrialRecord.of(fine_tunes_of(TRIAL)[0], "failed", error="the loss is nan"))
    move("another")
    with pytest.raises(TrainingError, match="the loss is nan"):
        RunFolder(sweep).check_fine_tune(TRIAL)


def test_second_run_on_another_node_is_rejected(sweep: Sweep, move: Callable[[str], None]) -> None:
    first = RunFolder(sweep).path
    with only_run(first, pytest.fail):
        move("another")
        second = RunFolder(sweep).path
        assert second != first
        with pytest.raises(SafecommError, match="another `safecomm run` is using this folder"), only_run(second, print):
            pass
    with only_run(second, pytest.fail):
        pass


def test_profile_cache_is_shared_between_nodes(sweep: Sweep, move: Callable[[str], None]) -> None:
    module = ModuleProfile(name="layers.0.q_proj", rho=0.5, null=0.3, v_norm=1.0, update_norm=2.0, projected_norm=1.0)
    ProfileCache(sweep).keep({}, 0, [module])
    move("another")
    profiles = ProfileCache(sweep)
    profiles.fetch()
    assert profiles.get({}, 0) == [module]


def questions(*words: str) -> dict[str, Question]:
    return {word: Question(messages=[{"role": "user", "content": word}], options=[]) for word in words}


class Model:
    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, missing: Any) -> list[pd.DataFrame]:
        self.asked += missing
        rows = {"question_id": list(missing), "response": [f"about {word}" for word in missing]}
        return [pd.DataFrame(rows | {"finish_reason": "stop", "scores": [[]] * len(missing), "error": ""})]


def test_answers_are_shared_between_nodes(bucket: str, move: Callable[[str], None]) -> None:
    model = Model()
    Responses(Store.of(bucket), {}).of(questions("a"), model)
    move("another")
    Responses(Store.of(bucket), {}).of(questions("a", "b"), model)
    move("node")
    found = Responses(Store.of(bucket), {}).of(questions("a", "b"), model)
    assert model.asked == ["a", "b"]
    assert list(found["response"]) == ["about a", "about b"]


@pytest.mark.parametrize("where", ["here", "in the bucket"])
def test_damaged_answers_are_refetched_or_regenerated_with_one_warning(
    bucket: str, move: Callable[[str], None], where: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = Model()
    Responses(Store.of(bucket), {}).of(questions("a"), model)
    (part,) = Store.of(bucket).root.glob("responses/*/*.parquet")
    if where == "here":
        part.write_bytes(b"other")
    else:
        there, prefix = objects(bucket)
        there.write(f"{prefix}/store/responses/{part.parent.name}/{part.name}", b"other")
        move("another")
    responses = Responses(Store.of(bucket), {})
    responses.of(questions("a"), model)
    responses.of(questions("a"), model)
    assert model.asked == (["a"] if where == "here" else ["a", "a"])
    assert caplog.text.count("is damaged") == (where == "in the bucket")


def test_planning_with_a_missing_bucket_prints_one_line(sweep: Sweep, tmp_path: Path) -> None:
    path = tmp_path / "missing.yaml"
    path.write_text(yaml.safe_dump(sweep.resolved() | {"storage": "s3://no-such-bucket/runs"}))
    done = CliRunner().invoke(app, ["plan", str(path), "--elsewhere"])
    assert isinstance(done.exception, StorageError)
    assert "storage: s3://no-such-bucket: the bucket does not exist" in str(done.exception)
