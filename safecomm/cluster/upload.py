"""What of a working directory goes to the cluster with a job."""

import logging
import zipfile
from pathlib import Path

from safecomm.cluster.ray_internals import zip_working_directory
from safecomm.cluster.reach import ClusterError
from safecomm.spec.secrets import secret_in

EXCLUDES = (
    *("/data/", "/shared/", "/runs/", "/tests/", "/docs/", "/benchmarks/"),
    *("*.safetensors", "*.bin", "*.gguf", "*.pt", "!/safecomm/data/lab/models/*/*.safetensors"),
    *(".env", ".env.*", ".netrc", "*.pem", "*.key", "auth_token"),
    *(".venv/", "venv/", ".git/", "wandb/", "__pycache__/", "*.egg-info/", ".*_cache/", ".hypothesis/"),
)
"""What stays behind: data and results, weights other than the lab's, secrets, and what tools leave. `.rayignore` says
the same to `ray job submit`."""
MOST_BYTES = 100 * 1024**2
"""More is no code; Ray keeps an upload in the head's memory."""
SHOWN = 3
"""Large files that are named."""


def pack(folder: Path, target: Path) -> int:
    """Packs a working directory, less what `.gitignore`, `.rayignore` and `EXCLUDES` name.

    Args:
        folder: the working directory.
        target: the zip file to write.

    Returns:
        Its size in bytes.

    Raises:
        ClusterError: where it is too large, or holds a secret of this environment.
    """
    zip_working_directory(folder, target, EXCLUDES, logging.getLogger(__name__))
    with zipfile.ZipFile(target) as package:
        files = package.infolist()
        if (size := target.stat().st_size) > MOST_BYTES:
            largest = sorted(files, key=lambda file: file.file_size, reverse=True)[:SHOWN]
            named = ", ".join(f"{file.filename} ({file.file_size / 1e6:.0f} MB)" for file in largest)
            raise ClusterError(
                f"{folder}: {size / 1e6:.0f} MB would go to the cluster; name in .rayignore what a job does not need. "
                f"The largest are {named}"
            )
        for file in files:
            if name := secret_in(package.read(file).decode(errors="ignore")):
                raise ClusterError(
                    f"{folder / file.filename}: holds a secret ({name}), and would go to the cluster; name the file "
                    "in .rayignore, or take the secret out"
                )
    return size
