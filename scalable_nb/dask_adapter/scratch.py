"""The private folder in which Dask's servers of one process keep temporary files.

Dask itself uses ``/tmp/dask-scratch-space``, which any user can create first.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import dask

from scalable_nb.errors import RunFolderError
from scalable_nb.paths import private_folder
from scalable_nb.trusted_paths import find_flaw, refusal

_LOCK: Final = "owner.lock"
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def node_scratch() -> Path:
    """Return the configured folder for temporary files, or the one of this machine."""
    configured: Any = dask.config.get("temporary-directory", None)
    return Path(configured or tempfile.gettempdir())


@contextmanager
def private_scratch(base: Path) -> Iterator[Path]:
    """Make a folder of mode 0700 with an unpredictable name, and remove it after the block.

    Those of killed processes of this user and machine are removed first.

    Parameters
    ----------
    base : Path
        It may be writable by others if it has the sticky bit.

    Raises
    ------
    RunFolderError
        If another user could exchange the folder.
    """
    base = base.expanduser().absolute()
    flaw = find_flaw(base / "scalable")  # does not exist: so the rules for a parent are used
    if flaw is not None:
        raise RunFolderError(
            refusal(base, flaw, "Set `local_directory` of the target, or Dask's "
                    "`temporary-directory`, to a folder that only you can write.")
        )  # fmt: skip
    if not base.exists():
        private_folder(base)
    prefix = f"scalable-{_machine()}-"
    remove_abandoned(base, prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=base))
    lock = _lock(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove_abandoned(base: Path, prefix: str) -> None:
    """Remove scratch folders of this user whose process no longer exists."""
    with os.scandir(base) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(prefix)]
    parent = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names:
            if _is_abandoned(name, parent):
                shutil.rmtree(name, ignore_errors=True, dir_fd=parent)
    finally:
        os.close(parent)


def _is_abandoned(name: str, parent: int) -> bool:
    """Return whether a folder is this user's and no process holds its lock."""
    try:
        folder = os.open(name, _FOLDER, dir_fd=parent)
    except OSError:  # a link, another user's, or just removed
        return False
    try:
        info = os.fstat(folder)
        if info.st_uid != os.getuid() or stat.S_IMODE(info.st_mode) != stat.S_IRWXU:
            return False
        lock = os.open(_LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(lock)
    except OSError:  # held, or still being made
        return False
    finally:
        os.close(folder)
    return True


def _lock(folder: Path) -> int:
    """Hold the folder's lock until the descriptor is closed or the process ends."""
    part = folder / f"{_LOCK}.part"
    lock = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    part.rename(folder / _LOCK)  # already locked, so it is never seen without a lock
    return lock


def _machine() -> str:
    # Locks may not reach other machines that share the folder.
    return re.sub(r"[^A-Za-z0-9_.]", "_", socket.gethostname())
