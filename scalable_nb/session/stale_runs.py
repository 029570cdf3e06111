"""Remove what killed hosts left behind."""

from __future__ import annotations

import logging
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from scalable_nb.paths import RunPaths, list_runs
from scalable_nb.protocol.connection_file import is_alive, read_state

logger = logging.getLogger(__name__)

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_stale_runs(runs_dir: Path) -> list[RunPaths]:
    """Remove keys, addresses, workspaces and jobs of dead hosts; the records stay.

    A link in a run folder is removed and never followed. A run of another user is not touched.

    Returns
    -------
    list of RunPaths
        The runs in which something was removed.

    Raises
    ------
    RunFolderError
        If other users could exchange the runs; nothing is removed then.
    """
    stale = [
        run
        for run in list_runs(runs_dir)
        if any(map(os.path.lexists, _leftovers(run))) and not is_alive(read_state(run.session_json))
    ]
    return [run for run in stale if _remove_leftovers(run)]


def remove_keys(run: RunPaths) -> None:
    """Remove certificate and key of a dead host."""
    try:
        with _open_own_folder(run.folder) as folder:
            if folder is not None:
                _remove(run.tls, folder)
    except FileNotFoundError:
        logger.debug("the folder of run %s no longer exists", run.run_id)


def _leftovers(run: RunPaths) -> tuple[Path, ...]:
    return run.tls, run.workspace, run.handed_over_key, run.session_json


def _remove_leftovers(run: RunPaths) -> bool:
    """Remove them relative to the open folder, which no link or renaming can exchange."""
    try:
        with _open_own_folder(run.folder) as folder:
            if folder is None:
                return False
            if os.path.lexists(run.session_json):
                _cancel_jobs(run)
            return sum(_remove(path, folder) for path in _leftovers(run)) > 0
    except OSError:
        logger.warning("cannot remove what a dead host left in %s", run.folder, exc_info=True)
        return False


@contextmanager
def _open_own_folder(folder: Path) -> Iterator[int | None]:
    descriptor = os.open(folder, _DIRECTORY)
    try:
        yield descriptor if os.fstat(descriptor).st_uid == os.getuid() else None
    finally:
        os.close(descriptor)


def _cancel_jobs(run: RunPaths) -> None:
    from scalable_nb.batch_system.job_queue import cancel_orphans

    try:
        jobs = cancel_orphans(run)
    except OSError as error:
        logger.warning("jobs of the dead host of %s may be in the queue: %s", run.run_id, error)
        return
    if jobs:
        logger.warning("cancelled what a dead host had left in the queue: %s", ", ".join(jobs))


def _remove(path: Path, folder: int) -> bool:
    """Remove an entry of an open folder; return whether it existed."""
    try:
        mode = os.stat(path.name, dir_fd=folder, follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            shutil.rmtree(path.name, dir_fd=folder)
        else:
            os.unlink(path.name, dir_fd=folder)
    except FileNotFoundError:
        return False
    except OSError:
        logger.warning("cannot remove %s, which a dead host left behind", path, exc_info=True)
        return False
    return True
