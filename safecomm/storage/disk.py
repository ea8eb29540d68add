"""Error reporting for full disks."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safecomm.errors import DiskFullError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""EFBIG: a limit on the size of files, as `ulimit -f` sets one."""


@contextmanager
def report_disk_full(folder: Path) -> Iterator[None]:
    """Converts "disk full" errors into a DiskFullError that names the folder and its free space."""
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:  # safetensors and Ray wrap the system's message in their own exception types
        if not _is_disk_full(error):
            raise
        full = _fullest(error, folder)
        left = shutil.disk_usage(full).free
        raise DiskFullError(
            f"{full}: the disk is full or your quota is used up ({left / 1e6:,.1f} MB left); free some space. "
            "Finished work is kept; run the same command again to continue"
        ) from error


def _is_disk_full(error: BaseException | None) -> bool:
    """Checks an error and its causes."""
    while error:
        if getattr(error, "errno", None) in DISK_FULL or any(os.strerror(code) in str(error) for code in DISK_FULL):
            return True
        error = error.__cause__ or error.__context__
    return False


def _fullest(error: BaseException, folder: Path) -> Path:
    """Returns the folder that can't be written: the one named by the error, or the candidate with least free space."""
    if isinstance(error, OSError) and error.filename and (own := Path(os.fsdecode(error.filename)).parent).is_dir():
        return own
    folder = next(place for place in (folder, *folder.parents) if place.is_dir())
    return min((folder, Path(tempfile.gettempdir())), key=lambda place: shutil.disk_usage(place).free)
