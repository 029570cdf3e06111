"""A dask-jobqueue job that says what went wrong when it was submitted."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from distributed.core import Status

from scalable_nb.dask_adapter.cluster import mark_closed
from scalable_nb.dask_adapter.compatibility import JOBS, check
from scalable_nb.manifest.job_options import job_class

if TYPE_CHECKING:
    from dask_jobqueue.core import Job

#: Submissions at the same time; some batch systems refuse a user who sends more.
_AT_ONCE: Final = 8


@cache
def session_job(provider: str) -> type[Job]:
    """dask-jobqueue's job class of a provider, for jobs of a session."""
    base: Any = job_class(provider)
    check(JOBS)
    turn = asyncio.Semaphore(_AT_ONCE)

    class SessionJob(base):  # type: ignore[misc]
        """Keeps the error of its submission, so that no other job is held up by it."""

        failure: str | None = None

        async def start(self) -> None:
            try:
                async with turn:
                    await super().start()
            except FileNotFoundError as error:
                self.failure = _not_found(error.filename or self.submit_command, provider)
            except (OSError, RuntimeError, ValueError) as error:
                # dask-jobqueue's message has exit code, command, stdout and stderr.
                self.failure = str(error).strip()
            self.status = Status.running

        async def close(self) -> None:
            try:
                await super().close()
            finally:
                mark_closed(self)

    SessionJob.__name__ = base.__name__
    return SessionJob


def _not_found(command: str, provider: str) -> str:
    hint = (
        " For a Slurm on this machine, to try things out: `python -m scalable_nb.devslurm up`."
        if provider == "slurm"
        else ""
    )
    return (
        f"the command `{command}` is not there: this machine has no {provider} that jobs could be "
        f"submitted to. Start the session on a login node, or use `%scalable start --target local`."
        f"{hint}"
    )
