"""Jobs that outlived their host: found in the run folders, and cancelled.

A running job ends by itself when its scheduler is gone. One that is still pending would start,
look for the scheduler until its death timeout, and end; it is spared the wait in the queue.
"""

from __future__ import annotations

import json
import logging
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from scalable_nb.manifest.jobqueue import job_class
from scalable_nb.paths import RunPaths, list_runs
from scalable_nb.telemetry.reader import read_rows

logger = logging.getLogger(__name__)

_TIMEOUT_S: Final = 30.0


def cancel_orphans(runs_dir: Path, is_alive: Callable[[RunPaths], bool]) -> list[str]:
    """Cancel the jobs of all runs whose host died, and tidy up after it.

    Parameters
    ----------
    runs_dir : Path
    is_alive : callable
        Whether the host of a run that was not ended is alive, or may be.

    Returns
    -------
    list of str
        Ids of the jobs that the batch system was asked to cancel.
    """
    cancelled = []
    for paths in list_runs(runs_dir):
        # It exists from the host's start to its orderly end.
        if paths.session_json.exists() and not is_alive(paths):
            cancelled += _cancel(paths)
            paths.session_json.unlink(missing_ok=True)
            shutil.rmtree(paths.tls, ignore_errors=True)
    return cancelled


def _cancel(paths: RunPaths) -> list[str]:
    provider = json.loads(paths.run_json.read_bytes())["provider"]
    jobs = [row["job_id"] for row in read_rows(paths.workers).rows
            if row.get("event_type") == "job-submitted"]  # fmt: skip
    if provider == "local" or not jobs:
        return []
    command = [*shlex.split(job_class(provider).cancel_command), *jobs]
    try:
        subprocess.run(command, capture_output=True, check=False, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning("the jobs of run %s could not be cancelled: %s", paths.run_id, error)
        return []
    return jobs
