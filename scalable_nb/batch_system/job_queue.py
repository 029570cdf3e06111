"""Submit, observe and cancel the jobs of a run: one query for all of them at a time."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import shlex
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from scalable_nb.batch_system.job_state import JobFacts, with_forgotten
from scalable_nb.batch_system.slurm_query import SlurmQuery
from scalable_nb.errors import BatchCommandError
from scalable_nb.manifest.job_options import BATCH_SYSTEMS, job_class
from scalable_nb.paths import RunPaths, write_private
from scalable_nb.signing import Kind, own_key
from scalable_nb.telemetry.journal_reader import read_object, read_rows

if TYPE_CHECKING:
    from dask_jobqueue.core import Job

#: Submissions at the same time; some batch systems refuse a user who sends more.
_AT_ONCE: Final = 8


logger = logging.getLogger(__name__)

_TIMEOUT_S: Final = 30.0

#: As dask-jobqueue reads them from the output of the submission. No option, no word, and not the
#: ``0`` that means all jobs of the user to LSF.
_JOB_ID: Final = re.compile(r"[1-9][0-9]{0,18}(\.[A-Za-z0-9][A-Za-z0-9_.-]{0,127})?", re.ASCII)

#: Seconds between two questions: twice as many after each that brought nothing new.
FIRST_SPACING_S: Final = 2.0
LONGEST_SPACING_S: Final = 30.0


class Queue:
    """A batch system that is not asked.

    Attributes
    ----------
    system : str
        Its name as a person writes it.
    reports_states : bool
        Whether anything will be known of its jobs.
    error : BatchCommandError or None
        Why the last question has no answer.
    """

    reports_states = False

    def __init__(self, system: str) -> None:
        self.system = system
        self.error: BatchCommandError | None = None

    def advice(self, job_id: str) -> str:
        """Where a person finds why a job waits; empty where that is said unasked."""
        command = BATCH_SYSTEMS[self.system.lower()].status_command
        return f"`{command} {job_id}` says why it waits."

    async def look(self) -> None:
        """Ask for the states of all jobs, where it is time to."""

    def look_soon(self) -> None:
        """Something has happened: do not wait long with the next question."""

    def facts(self, job_id: str) -> JobFacts | None:
        """What was said last of a job."""
        return None

    def last_running(self, job_id: str) -> JobFacts | None:
        """What was said last of a job while it ran."""
        return None

    def how_ended(self, job_id: str) -> str | None:
        """The final state of a job; None while it has none, or it is not known."""
        facts = self.facts(job_id)
        return facts.state if facts is not None and facts.has_ended else None

    async def runs(self, job_ids: Collection[str]) -> Mapping[str, Sequence[JobFacts]]:
        """All runs of these jobs that the accounting has written down; empty without any."""
        return {}

    async def last_runs(self) -> dict[str, JobFacts]:
        """What is remembered in detail of each job's last run."""
        return {}


class SlurmQueue(Queue):
    """Slurm, asked for all jobs of a name.

    Parameters
    ----------
    job_name : str
    first_spacing_s : float
        Seconds between the first two questions, and again whenever something has changed.
    """

    reports_states = True

    def __init__(self, job_name: str, first_spacing_s: float = FIRST_SPACING_S) -> None:
        super().__init__("Slurm")
        self._query = SlurmQuery(job_name)
        self._facts: dict[str, JobFacts] = {}
        self._running: dict[str, JobFacts] = {}
        self._states: dict[str, tuple[str, str | None]] = {}
        self._first_spacing_s = first_spacing_s
        self._spacing_s = first_spacing_s
        self._queried_at = float("-inf")

    def advice(self, job_id: str) -> str:
        """Nothing: the reason is in what `squeue` says."""
        return ""

    async def look(self) -> None:
        """Ask, unless that was done a moment ago."""
        if monotonic() - self._queried_at < self._spacing_s:
            return
        self._queried_at = monotonic()
        try:
            found = await self._query.jobs()
        except BatchCommandError as error:
            if self.error is None:
                logger.warning("%s", error)
            self.error = error
            return
        self.error = None
        self._facts = with_forgotten(self._facts, found)
        self._running.update((k, facts) for k, facts in found.items() if facts.state == "RUNNING")
        states = {job_id: (facts.state, facts.reason) for job_id, facts in self._facts.items()}
        is_quiet = states == self._states
        self._states = states
        self._spacing_s = longer_s(self._spacing_s) if is_quiet else self._first_spacing_s

    def look_soon(self) -> None:
        """Begin again with short waits."""
        self._spacing_s = self._first_spacing_s

    def facts(self, job_id: str) -> JobFacts | None:
        """What ``squeue`` said last of a job."""
        return self._facts.get(job_id)

    def last_running(self, job_id: str) -> JobFacts | None:
        """What ``squeue`` said last of a job while it ran."""
        return self._running.get(job_id)

    async def runs(self, job_ids: Collection[str]) -> Mapping[str, Sequence[JobFacts]]:
        """From ``sacct``.

        Raises
        ------
        BatchCommandError
        """
        return await self._query.runs(job_ids) or {}

    async def last_runs(self) -> dict[str, JobFacts]:
        """From ``scontrol``.

        Raises
        ------
        BatchCommandError
        """
        return await self._query.last_runs()


def longer_s(spacing_s: float) -> float:
    """The wait after one that brought nothing new, in seconds."""
    return min(2 * spacing_s, LONGEST_SPACING_S)


def open_queue(provider: str, job_name: str) -> Queue:
    """The queue of a provider."""
    return SlurmQueue(job_name) if provider == "slurm" else Queue(provider.upper())


def cancel_orphans(paths: RunPaths) -> list[str]:
    """Cancel all jobs of a run whose host died, its own included.

    Only jobs whose record is signed: in the records of an unpacked archive, any id may be that of
    a job of the user.

    Returns
    -------
    list of str
        Ids of the jobs that the batch system was asked to cancel.
    """
    provider = read_object(paths.run_json).get("provider")
    if provider not in BATCH_SYSTEMS:
        return []
    rows = [row for row in read_rows(paths.workers).rows
            if row.get("event_type") == "job-submitted"]  # fmt: skip
    found = [
        row for row in (*rows, read_object(paths.host_job_json)) if is_job_id(row.get("job_id"))
    ]
    jobs = [row["job_id"] for row in found if is_signed_job(paths.run_id, provider, row)]
    others = sorted({row["job_id"] for row in found} - set(jobs))
    if others:
        logger.warning(
            "jobs of the dead host of run %s are not cancelled, because their record is not signed "
            "with your key: %s. If they are yours and in the queue: `%s %s`",
            paths.run_id, ", ".join(others), job_class(provider).cancel_command, " ".join(others),
        )  # fmt: skip
    return jobs if jobs and cancel_jobs(provider, jobs) else []


def sign_job(run_id: str, provider: str, job_id: str) -> str:
    """Return the signature of a job of a run."""
    return own_key().sign(Kind.JOB, run_id.encode(), f"{provider} {job_id}".encode()).hex()


def is_signed_job(run_id: str, provider: str, row: Mapping[str, Any]) -> bool:
    """Return whether the user's key signed the record of a job."""
    return row.get("signature") == sign_job(run_id, provider, row["job_id"])


def is_job_id(job_id: object) -> TypeGuard[str]:
    """Return whether this is the id of one job, and not an option or a word such as ``all``."""
    return isinstance(job_id, str) and _JOB_ID.fullmatch(job_id) is not None


def cancel_jobs(provider: str, job_ids: Sequence[str]) -> bool:
    """Cancel jobs; return whether the command of the batch system could be run.

    Raises
    ------
    ValueError
        If an id is not the id of one job.
    """
    wrong = [job_id for job_id in job_ids if not is_job_id(job_id)]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is not a job id: expected digits, e.g. '4711'")
    command = [*shlex.split(job_class(provider).cancel_command), *job_ids]
    try:
        subprocess.run(command, capture_output=True, check=False, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning("the jobs %s could not be cancelled: %s", ", ".join(job_ids), error)
        return False
    return True


@cache
def session_job(provider: str) -> type[Job]:
    """dask-jobqueue's job class of a provider, for jobs of a session."""
    # Kernels import this module before Dask, which they load while the host starts.
    from scalable_nb.dask_adapter.cluster import mark_closed, mark_running
    from scalable_nb.dask_adapter.compatibility import JOBS, check

    base: Any = job_class(provider)
    check(JOBS)
    turn = asyncio.Semaphore(_AT_ONCE)

    class SessionJob(base):  # type: ignore[misc]
        """Keeps the error of its submission, so that no other job is held up by it.

        Parameters
        ----------
        script_folder : Path
            Private folder of the script while it is submitted.
        *args, **kwargs
            As for dask-jobqueue's class.
        """

        failure: str | None = None

        def __init__(self, *args: Any, script_folder: Path, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._script_folder = script_folder

        @contextmanager
        def job_file(self) -> Iterator[str]:
            # dask-jobqueue writes it, with the environment in it, to /tmp with mode 0644.
            path = self._script_folder / f"job-{secrets.token_hex(8)}.sh"
            write_private(path, self.job_script().encode())
            try:
                # For LSF, dask-jobqueue makes a command line of the path.
                yield shlex.quote(str(path)) if getattr(self, "use_stdin", False) else str(path)
            finally:
                path.unlink(missing_ok=True)

        async def start(self) -> None:
            try:
                async with turn:
                    await super().start()
            except FileNotFoundError as error:
                self.failure = _not_found(error.filename or self.submit_command, provider)
            except (OSError, RuntimeError, ValueError) as error:
                # dask-jobqueue's message has exit code, command, stdout and stderr.
                self.failure = str(error).strip()
            mark_running(self)

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
