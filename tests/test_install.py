"""The installer: one-line errors, recovery after an interruption, and the images built from it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from drop_partial import is_whole

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def install(venv: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Runs the installer, on input that it must refuse before it asks the package index."""
    command = [str(ROOT / "scripts" / "install.sh"), str(venv)]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)


def command(folder: Path, name: str, text: str) -> Path:
    """Makes a command that prints a text and fails."""
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{text}'\nexit ${{CODE:-1}}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("version", ["Python 3.10.13", "Python 3.14.0"])
def test_unsupported_python_lists_the_supported_ones(version: str, tmp_path: Path) -> None:
    done = install(tmp_path / "venv", PYTHON=str(command(tmp_path, "python", version)))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and "Python 3.11, 3.12 or 3.13" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_unsupported_system_lists_the_supported_ones(tmp_path: Path) -> None:
    command(tmp_path, "uname", "Linux riscv64")
    done = install(tmp_path / "venv", PATH=f"{tmp_path}:{os.environ['PATH']}", PYTHON=sys.executable, CODE="0")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "no lock for Linux riscv64" in done.stderr and "Linux aarch64" in done.stderr


def test_folder_that_is_not_an_environment_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("ten years of work")
    done = install(tmp_path, PYTHON=sys.executable)
    assert done.returncode == 1 and "not a virtual environment" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def package(site: Path, files: dict[str, str]) -> Path:
    """Writes a package as pip leaves it."""
    metadata = site / "thing-1.0.dist-info"
    metadata.mkdir()
    for name, text in files.items():
        (site / name).write_text(text)
    rows = [f"{name},sha256=x,{len(text)}" for name, text in files.items()]
    (metadata / "RECORD").write_text("\n".join([*rows, "__pycache__/thing.cpython-311.pyc,,", "RECORD,,"]))
    (site / "RECORD").touch()
    return metadata


def test_package_is_complete_only_with_its_record_and_files(tmp_path: Path) -> None:
    metadata = package(tmp_path, {"thing.py": "x = 1\n", "data.bin": "0123456789"})
    assert is_whole(metadata)
    (tmp_path / "data.bin").write_text("0123")
    assert not is_whole(metadata), "a file that was cut short"
    (tmp_path / "data.bin").write_text("0123456789")
    (tmp_path / "thing.py").unlink()
    assert not is_whole(metadata), "a file that is missing"
    (metadata / "RECORD").unlink()
    assert not is_whole(metadata), "a package whose record was never written"


def test_every_package_of_this_environment_is_complete() -> None:
    site = Path(next(path for path in sys.path if path.endswith("site-packages")))
    assert [metadata.name for metadata in site.glob("*.dist-info") if not is_whole(metadata)] == []


def test_images_copy_existing_files_and_use_the_locks() -> None:
    stages = dict(re.findall(r"^FROM \S+ AS (\w+)\n(.*?)(?=^FROM|\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL))
    assert stages.keys() == {"base", "gpu", "cpu"}
    assert "GPU=1 scripts/install.sh" in stages["gpu"] and "GPU=0 scripts/install.sh" in stages["cpu"]
    for sources in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.MULTILINE):
        assert all((ROOT / source).exists() for source in sources.split()), sources


def test_images_include_what_the_installer_reads() -> None:
    ignored = {line.strip("/") for line in (ROOT / ".dockerignore").read_text().splitlines()}
    assert ignored.isdisjoint({"locks", "scripts", "safecomm", "sweeps", "pyproject.toml", "README.md", "LICENSE"})


def test_files_excluded_from_jobs_are_excluded_from_images() -> None:
    ignored = {line.removeprefix("**/") for line in (ROOT / ".dockerignore").read_text().splitlines()}
    left_behind = [line.strip("/") for line in (ROOT / ".rayignore").read_text().splitlines() if line[0] not in "#!"]
    assert set(left_behind) <= ignored
