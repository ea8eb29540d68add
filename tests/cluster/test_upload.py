"""What goes to the cluster with a job: the code and the sweeps, no data, no results, no secret."""

import shutil
import zipfile
from pathlib import Path

import pytest

from safecomm.cluster import upload
from safecomm.cluster.reachable import ClusterError
from safecomm.cluster.upload import EXCLUDES, pack

ROOT = Path(__file__).parents[2]
SECRET = "not-a-real-key-0123456789abcdef0123456789"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A clean checkout in which somebody has worked."""
    folder = tmp_path / "checkout"
    for part in ("safecomm", "sweeps", "tests"):
        shutil.copytree(ROOT / part, folder / part)
    for name in (".rayignore", ".gitignore", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    for left in (
        "data/TeleQnA.txt",
        "runs/lab/report.html",
        ".venv/lib/x.py",
        "wandb/run",
        ".git/HEAD",
        "model.safetensors",
        ".env",
    ):
        (folder / left).parent.mkdir(parents=True, exist_ok=True)
        (folder / left).write_text("x" * 1000)
    return folder


def packed(folder: Path, tmp_path: Path) -> set[str]:
    pack(folder, tmp_path / "package.zip")
    return set(zipfile.ZipFile(tmp_path / "package.zip").namelist())


def test_a_checkout_is_sent_without_data_results_weights_or_secrets(checkout: Path, tmp_path: Path) -> None:
    names = packed(checkout, tmp_path)
    assert {"safecomm/__main__.py", "safecomm/data/mixing.py", "sweeps/lab.yaml", "pyproject.toml"} <= names
    tops = {name.partition("/")[0] for name in names}
    assert not tops & {"data", "runs", ".venv", "wandb", "tests", ".git", "model.safetensors", ".env"}
    assert (tmp_path / "package.zip").stat().st_size < 8e6


def test_ray_job_submit_leaves_the_same_behind() -> None:
    lines = (ROOT / ".rayignore").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == list(EXCLUDES)


def test_a_file_with_a_secret_of_this_environment_is_not_sent(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    (checkout / "notes.txt").write_text(f"my key: {SECRET}")
    with pytest.raises(ClusterError, match=r"notes\.txt: contains a secret \(WANDB_API_KEY\)") as told:
        packed(checkout, tmp_path)
    assert SECRET not in str(told.value)


def test_what_is_too_large_is_refused_and_named(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "MAX_BYTES", 10_000)
    with pytest.raises(ClusterError, match=r"the upload would be .*rayignore.*aligned/model\.safetensors"):
        packed(checkout, tmp_path)
