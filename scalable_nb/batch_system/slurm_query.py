"""Asks Slurm about jobs: always one command for all of them, never in the way of the host."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection
from typing import Final

from scalable_nb.batch_system.job_state import JobFacts
from scalable_nb.batch_system.slurm_parsers import (
    SACCT_FIELDS,
    SQUEUE_FORMAT,
    parse_sacct,
    parse_scontrol,
    parse_squeue,
)
from scalable_nb.errors import BatchCommandError

_TIMEOUT_S: Final = 30.0

#: What `sacct` says where nothing is written down.
_NO_ACCOUNTING: Final = "accounting storage is disabled"


async def run_command(*command: str) -> str:
    """The output of a command of the batch system.

    Raises
    ------
    BatchCommandError
        When it cannot be run, fails, or does not end.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            env={**os.environ, "SLURM_TIME_FORMAT": "%s"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise BatchCommandError(command, None, "", str(error)) from error
    try:
        out, err = await asyncio.wait_for(process.communicate(), _TIMEOUT_S)
    except BaseException as error:
        process.kill()
        await process.wait()
        if isinstance(error, TimeoutError):
            silence = f"no answer within {_TIMEOUT_S:g} s"
            raise BatchCommandError(command, None, "", silence) from error
        raise
    stdout, stderr = out.decode(errors="replace"), err.decode(errors="replace")
    if process.returncode:
        raise BatchCommandError(command, process.returncode, stdout, stderr)
    return stdout


class SlurmQuery:
    """Slurm's commands, in what they say of the jobs of one name.

    Parameters
    ----------
    job_name : str
    """

    def __init__(self, job_name: str) -> None:
        self._job_name = job_name
        self._has_accounting = True

    async def jobs(self) -> dict[str, JobFacts]:
        """Jobs that wait, run or ended a short while ago, by id.

        Raises
        ------
        BatchCommandError
        """
        return parse_squeue(
            await run_command(
                "squeue",
                "--me",
                "--all",  # also those in hidden partitions
                f"--name={self._job_name}",
                "--states=all",
                "--noheader",
                f"--format={SQUEUE_FORMAT}",
            )
        )

    async def runs(self, job_ids: Collection[str]) -> dict[str, list[JobFacts]] | None:
        """All runs of these jobs as they were written down; None where nothing is.

        Raises
        ------
        BatchCommandError
        """
        if not self._has_accounting:
            return None
        try:
            text = await run_command(
                "sacct",
                "--duplicates",
                "--noheader",
                "--parsable2",
                f"--jobs={','.join(job_ids)}",
                f"--format={SACCT_FIELDS}",
            )
        except BatchCommandError as error:
            is_absent = isinstance(error.__cause__, FileNotFoundError)
            if not is_absent and _NO_ACCOUNTING not in error.stderr:
                raise
            self._has_accounting = False
            return None
        return parse_sacct(text)

    async def last_runs(self) -> dict[str, JobFacts]:
        """What the controller remembers of each job's last run, by id.

        Raises
        ------
        BatchCommandError
        """
        return parse_scontrol(await run_command("scontrol", "show", "job", "--oneliner"))
