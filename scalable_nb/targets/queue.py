"""What a batch system says of the jobs of a run: one question for all of them."""

from __future__ import annotations

import asyncio
import logging
from time import time
from typing import Final

logger = logging.getLogger(__name__)

_INTERVAL_S: Final = 2.0

#: A job in one of these states has, or may still get, its workers.
_ALIVE: Final = frozenset(
    {
        "COMPLETING",
        "CONFIGURING",
        "PENDING",
        "REQUEUED",
        "REQUEUE_HOLD",
        "REQUEUE_FED",
        "RESIZING",
        "RUNNING",
        "SIGNALING",
        "SPECIAL_EXIT",
        "STAGE_OUT",
        "STOPPED",
        "SUSPENDED",
    }
)


class Queue:
    """A batch system that is not asked."""

    is_telling = False

    async def look(self) -> None:
        """Ask for the states of all jobs, now and then."""

    def how_ended(self, job_id: str) -> str | None:
        """The final state of a job; None while it has none, or it is not known."""
        return None


class SlurmQueue(Queue):
    """Slurm, asked with one ``squeue`` for all jobs of a name.

    Parameters
    ----------
    job_name : str
    """

    is_telling = True

    def __init__(self, job_name: str) -> None:
        self._job_name = job_name
        self._states: dict[str, str] = {}
        self._asked_at = 0.0

    async def look(self) -> None:
        """Ask, unless that was done a moment ago."""
        if time() - self._asked_at < _INTERVAL_S:
            return
        self._asked_at = time()
        process = await asyncio.create_subprocess_exec(
            "squeue", "--me", f"--name={self._job_name}", "--states=all", "--noheader",
            "--format=%i %T",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        if process.returncode:
            logger.warning("squeue failed: %s", err.decode(errors="replace").strip())
            return
        for line in out.decode().splitlines():
            job_id, _, state = line.partition(" ")
            self._states[job_id] = state

    def how_ended(self, job_id: str) -> str | None:
        """The final state of a job; None while it has none, or it is not known."""
        state = self._states.get(job_id)
        return None if state in _ALIVE else state


def open_queue(provider: str, job_name: str) -> Queue:
    """The queue of a provider."""
    return SlurmQueue(job_name) if provider == "slurm" else Queue()
