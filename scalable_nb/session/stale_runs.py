"""Removes what hosts left behind that were killed before they could do it themselves."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

from scalable_nb.paths import RunPaths, list_runs
from scalable_nb.protocol.connection_file import is_alive, read_state

logger = logging.getLogger(__name__)


def remove_stale_runs(runs_dir: Path) -> list[RunPaths]:
    """Remove keys, addresses, workspaces and jobs of dead hosts; the records stay.

    Returns
    -------
    list of RunPaths
        The runs in which something was removed.
    """
    stale = [
        run
        for run in list_runs(runs_dir)
        if any(_leftovers(run)) and not is_alive(read_state(run.session_json))
    ]
    for run in stale:
        if run.session_json.exists():
            _cancel_jobs(run)
        for path in _leftovers(run):
            _remove(path)
    return stale


def _leftovers(run: RunPaths) -> Iterator[Path]:
    yield from (path for path in (run.tls, run.workspace, run.session_json) if path.exists())


def _cancel_jobs(run: RunPaths) -> None:
    from scalable_nb.batch_system.job_queue import cancel_orphans

    jobs = cancel_orphans(run)
    if jobs:
        logger.warning("cancelled what a dead host had left in the queue: %s", ", ".join(jobs))


def _remove(path: Path) -> None:
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError:
        logger.warning("cannot remove %s, which a dead host left behind", path, exc_info=True)
