"""Packs the working directory for upload with a job."""

import logging
import zipfile
from pathlib import Path

from safecomm.cluster.ray_internals import zip_working_directory
from safecomm.cluster.reachable import ClusterError
from safecomm.spec.secrets import secret_in

EXCLUDES = (
    *("/data/", "/shared/", "/runs/", "/tests/", "/docs/", "/benchmarks/"),
    *("*.safetensors", "*.bin", "*.gguf", "*.pt", "!/safecomm/data/lab/models/*/*.safetensors"),
    *(".env", ".env.*", ".netrc", "*.pem", "*.key", "auth_token"),
    *(".venv/", "venv/", ".git/", "wandb/", "__pycache__/", "*.egg-info/", ".*_cache/", ".hypothesis/"),
)
"""Excluded files: data, results, weights other than the lab's, secrets and tool caches. `.rayignore` has the same list
for `ray job submit`."""
MAX_BYTES = 100 * 1024**2
"""Upload limit. Code is smaller than this, and Ray keeps uploads in the head node's memory."""
SHOWN = 3
"""Number of large files that the error message lists."""


def pack(folder: Path, target: Path) -> int:
    """Packs a working directory without the files matched by `.gitignore`, `.rayignore` and `EXCLUDES`.

    Args:
        folder: the working directory.
        target: the zip file to write.

    Returns:
        The archive's size in bytes.

    Raises:
        ClusterError: if the archive is too large or contains a secret from this environment.
    """
    zip_working_directory(folder, target, EXCLUDES, logging.getLogger(__name__))
    with zipfile.ZipFile(target) as package:
        files = package.infolist()
        if (size := target.stat().st_size) > MAX_BYTES:
            largest = sorted(files, key=lambda file: file.file_size, reverse=True)[:SHOWN]
            named = ", ".join(f"{file.filename} ({file.file_size / 1e6:.0f} MB)" for file in largest)
            raise ClusterError(
                f"{folder}: the upload would be {size / 1e6:.0f} MB; list files that the job does not need in "
                f".rayignore. The largest are {named}"
            )
        for file in files:
            if name := secret_in(package.read(file).decode(errors="ignore")):
                raise ClusterError(
                    f"{folder / file.filename}: contains a secret ({name}) and would be uploaded; list the file in "
                    ".rayignore or remove the secret"
                )
    return size
