"""Commands that a session runs on the machine of its host, apart from submitting and cancelling."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Final

SQUEUE_FORMAT: Final = "%i|%T|%r|%S|%B|%M|%e"
SACCT_FIELDS: Final = "JobID,State,ExitCode,ElapsedRaw,MaxRSS,NodeList,Start,End"

#: What the controller of Slurm remembers of each job's last run.
SCONTROL: Final = ("scontrol", "show", "job", "--oneliner")

#: Not ``-m``: `multiprocessing` would import the main module, all of the host, in each worker.
_HOST_CODE: Final = "from scalable_nb.host.process import main; main()"


def host_process(folder: str) -> tuple[str, ...]:
    """Return the command of a host that is a process of this machine.

    Parameters
    ----------
    folder : str
        The run's.
    """
    # -P: the notebook's folder must not shadow what the host imports.
    return (sys.executable, "-P", "-c", _HOST_CODE, folder)


def squeue(job_name: str) -> tuple[str, ...]:
    """Return the command for the states of all jobs of a run."""
    return (
        "squeue",
        "--me",
        "--all",  # also those in hidden partitions
        f"--name={job_name}",
        "--states=all",
        "--noheader",
        f"--format={SQUEUE_FORMAT}",
    )


def sacct(job_ids: Iterable[str]) -> tuple[str, ...]:
    """Return the command for all runs of some jobs, from the accounting."""
    return (
        "sacct",
        "--duplicates",
        "--noheader",
        "--parsable2",
        f"--jobs={','.join(job_ids)}",
        f"--format={SACCT_FIELDS}",
    )
