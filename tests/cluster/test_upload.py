"""A job's upload contains the code and the sweeps, but no data, results or secrets."""

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


def test_upload_excludes_data_results_weights_and_secrets(checkout: Path, tmp_path: Path) -> None:
    names = packed(checkout, tmp_path)
    assert {"safecomm/__main__.py", "safecomm/data/mixing.py", "sweeps/lab.yaml", "pyproject.toml"} <= names
    tops = {name.partition("/")[0] for name in names}
    assert not tops & {"data", "runs", ".venv", "wandb", "tests", ".git", "model.safetensors", ".env"}
    assert (tmp_path / "package.zip").stat().st_size < 10e6


def test_ray_job_submit_excludes_the_same_files() -> None:
    lines = (ROOT / ".rayignore").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == list(EXCLUDES)


def test_files_with_an_environment_secret_are_not_uploaded(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    (checkout / "notes.txt").write_text(f"my key: {SECRET}")
    with pytest.raises(ClusterError, match=r"notes\.txt: contains a secret \(WANDB_API_KEY\)") as told:
        packed(checkout, tmp_path)
    assert SECRET not in str(told.value)


def test_too_large_uploads_are_rejected_by_name(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "MAX_BYTES", 10_000)
    with pytest.raises(ClusterError, match=r"the upload would be .*rayignore.*aligned/model\.safetensors"):
        packed(checkout, tmp_path)
