"""Writes outputs whole or not at all: under a temporary name beside their place, renamed once they are complete."""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safecomm.errors import UsageError
from safecomm.storage.disk import report_disk_full

FOUND_IN_NEW_VOLUMES = "lost+found"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a temporary file to write, and renames it to `path` on success; a reader sees the old file or the new one.

    Raises:
        DiskFullError: if the disk is full.
    """
    half = path.with_name(f".{path.name[:50]}.{secrets.token_hex(4)}")  # a file's name has at most 255 bytes
    try:
        with report_disk_full(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield half
            half.replace(path)
    finally:
        half.unlink(missing_ok=True)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder to fill, which becomes `folder` on success.

    Its files get the permissions of the user's umask; some libraries write them for their owner only.

    Args:
        folder: does not exist, or is empty; it may be a link to such a folder, or a mounted volume.

    Raises:
        UsageError: if the folder exists and is not empty, or can't be created.
        DiskFullError: if the disk is full.
    """
    try:
        folder = folder.expanduser().resolve()
        if folder.exists() and (not folder.is_dir() or any(_entries(folder))):
            raise UsageError(f"{folder}: already exists; choose another output folder or remove it")
        folder.parent.mkdir(parents=True, exist_ok=True)
        # A volume can't be replaced by another folder, nor one in a folder of somebody else.
        inside = folder.exists() and (folder.is_mount() or not os.access(folder.parent, os.W_OK))
        half = Path(tempfile.mkdtemp(prefix=f".{folder.name}-"[:60], dir=folder if inside else folder.parent))
    except (OSError, ValueError, RuntimeError) as error:  # NUL, too long, an unknown user
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{folder}: can't be written: {reason}; choose another output folder") from error
    try:
        with report_disk_full(folder.parent):
            yield half
            _follow_umask(half)
            if not inside:
                half.replace(folder)
                return
            for entry in list(half.iterdir()):
                entry.replace(folder / entry.name)
    finally:
        shutil.rmtree(half, ignore_errors=True)


def unwritable(folder: Path) -> str | None:
    """Returns why nothing can be written to a folder, or None; creates nothing, even if the folder does not exist."""
    place = folder
    if "\0" in str(folder):
        return "it has a NUL character"
    try:
        place = folder.expanduser().absolute()
        while not place.exists() and place != place.parent:
            place = place.parent
        if not place.is_dir():
            return f"{place} is a file"
        with tempfile.TemporaryDirectory(prefix=".safecomm-", dir=place):
            return None
    except (OSError, ValueError, RuntimeError) as error:
        return f"{place} can't be written to ({getattr(error, 'strerror', None) or error})"


def output_folder(option: str, folder: Path) -> Path:
    """Returns a new folder that an option names, with `~` expanded.

    Commands call it before any work. It creates nothing; `new_folder` fills the folder.

    Raises:
        UsageError: if the folder exists and is not empty, or can't be created.
    """
    reason = unwritable(folder)
    if not reason and (whole := folder.expanduser()).exists() and any(_entries(whole)):
        reason = "already exists and is not empty"
    if reason:
        raise UsageError(f"{option} {folder}: {reason}; choose another output folder")
    return folder.expanduser()


def output_file(option: str, file: Path, replaces: bool = False, hint: str = "") -> Path:
    """Returns a file that an option names, with `~` expanded.

    Commands call it before any work. It creates nothing; `whole_file` writes the file.

    Args:
        option: the option.
        file: the file.
        replaces: whether an existing file is replaced.
        hint: what else the user could do about an existing file.

    Raises:
        UsageError: if the file exists, can't be created, or is something else than a file.
    """
    try:
        whole = file.expanduser()
        if not os.path.lexists(whole):
            reason = unwritable(whole)
        elif not whole.is_file() and not (whole.is_symlink() and not whole.exists()):
            reason = "is a folder" if whole.is_dir() else "is not a regular file"  # e.g. /dev/null, which would be gone
        elif not replaces:
            raise UsageError(f"{option} {file}: exists already; choose another file{hint}")
        else:
            reason = unwritable(whole.parent)
    except (OSError, ValueError, RuntimeError) as error:  # NUL, an unknown user
        reason = f"can't be written ({getattr(error, 'strerror', None) or error})"
    if reason:
        raise UsageError(f"{option} {file}: {reason}; choose another file")
    return whole


def _entries(folder: Path) -> Iterator[Path]:
    return (entry for entry in folder.iterdir() if entry.name != FOUND_IN_NEW_VOLUMES)


def _follow_umask(folder: Path) -> None:
    umask = os.umask(0o022)
    os.umask(umask)
    for path in (folder, *folder.rglob("*")):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)
