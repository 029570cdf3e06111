"""Jobs that outlived their host: found in its run folder, and cancelled.

A running job ends by itself when its scheduler is gone. One that is still pending would start,
look for the scheduler until its death timeout, and end; it is spared the wait in the queue.
"""

from __future__ import annotations

import json
import logging
import shlex
import subprocess
from collections.abc import Sequence
from typing import Final

from scalable_nb.manifest.job_options import job_class
from scalable_nb.paths import RunPaths
from scalable_nb.telemetry.journal_reader import read_rows

logger = logging.getLogger(__name__)

_TIMEOUT_S: Final = 30.0


def cancel_orphans(paths: RunPaths) -> list[str]:
    """Cancel all jobs of a run whose host died, its own included.

    Returns
    -------
    list of str
        Ids of the jobs that the batch system was asked to cancel.
    """
    provider = json.loads(paths.run_json.read_bytes()).get("provider", "local")
    jobs = [row["job_id"] for row in read_rows(paths.workers).rows
            if row.get("event_type") == "job-submitted"]  # fmt: skip
    if paths.host_job_json.exists():
        jobs.append(json.loads(paths.host_job_json.read_bytes())["job_id"])
    if provider == "local" or not jobs:
        return []
    return jobs if cancel_jobs(provider, jobs) else []


def cancel_jobs(provider: str, job_ids: Sequence[str]) -> bool:
    """Ask a batch system to cancel jobs; says whether it could be asked."""
    command = [*shlex.split(job_class(provider).cancel_command), *job_ids]
    try:
        subprocess.run(command, capture_output=True, check=False, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning("the jobs %s could not be cancelled: %s", ", ".join(job_ids), error)
        return False
    return True
