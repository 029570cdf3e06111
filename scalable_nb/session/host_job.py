"""A host that is a batch job: submitted, waited for, cancelled."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from scalable_nb.batch_system.job_queue import (
    cancel_jobs,
    is_job_id,
    is_signed_job,
    open_queue,
    sign_job,
)
from scalable_nb.batch_system.job_state import JobFacts, outcome_text
from scalable_nb.errors import RunFolderError, StartError
from scalable_nb.manifest.job_options import BATCH_SYSTEMS, host_keywords, job_name
from scalable_nb.manifest.load import LoadedManifest
from scalable_nb.paths import RunPaths, write_private
from scalable_nb.protocol.connection_file import (
    HEARTBEAT_INTERVAL_S,
    HostState,
    read_state,
    touch,
    write_state,
)
from scalable_nb.telemetry.journal_reader import read_object
from scalable_nb.telemetry.sanitize import plain_text
from scalable_nb.trusted_paths import read_last_lines

logger = logging.getLogger(__name__)

T = TypeVar("T")

_END_GRACE_S: Final = 15.0
_LOG_LINES: Final = 15


class HostJob:
    """A host that is, or will be, a batch job.

    Parameters
    ----------
    paths : RunPaths
    provider : str
        The batch system.
    job_id : str
    name : str
        Of all jobs of the run.
    logs : Path
        Folder of what its jobs print.
    """

    poll_s = 0.2

    def __init__(
        self, paths: RunPaths, *, provider: str, job_id: str, name: str, logs: Path
    ) -> None:
        self.job_id = job_id
        self._paths = paths
        self._provider = provider
        self._logs = logs
        self._queue = open_queue(provider, name)
        self._asked_at = time.time()
        self._touched_at = 0.0
        self._reported_reason: str | None = None

    @property
    def system(self) -> str:
        """The batch system, as a person writes it."""
        return self._queue.system

    @classmethod
    def of(cls, paths: RunPaths) -> Self | None:
        """The host of a run that somebody else started; None where it is no job."""
        about = read_object(paths.host_job_json)
        if not about:
            return None
        provider, job_id = about.get("provider"), about.get("job_id")
        if provider not in BATCH_SYSTEMS or not is_job_id(job_id):
            raise RunFolderError(
                f"{paths.host_job_json} names the job {job_id!r} of {provider!r}: expected a job "
                "id, e.g. '4711', and a batch system. The file is damaged, and is not used."
            )
        if not is_signed_job(paths.run_id, provider, about):
            raise RunFolderError(
                f"{paths.host_job_json} is not signed with your key, so its job {job_id} is not "
                f"used. If you trust its author, `%scalable attach {paths.run_id} --trust` "
                "signs it"
            )
        logs = Path(str(about.get("logs") or paths.jobs))
        return cls(paths, provider=provider, job_id=job_id, name=str(about.get("name")), logs=logs)

    def has_ended(self) -> bool:
        """Whether the job is over; a host on any batch system writes that down itself, last."""
        run_coroutine(self._queue.look())
        facts = self._facts()
        return self._paths.summary_json.exists() or (facts is not None and facts.has_ended)

    def how_ended(self) -> str:
        """In which state, where, after how long, with which exit code, as far as is known."""
        outcome = run_coroutine(self._outcome()) or self._facts()
        if outcome is None:
            return f"{self.system} job {self.job_id} ended"
        return outcome_text(self.system, outcome)

    def advice(self) -> str:
        """Where a person finds why the job waits, where that is not told here."""
        advice = self._queue.advice(self.job_id)
        return f"{advice} " if advice else ""

    def is_queued(self) -> bool:
        """Whether the job has not begun; says what it waits for, and that somebody does."""
        if read_state(self._paths.session_json).get("state") != HostState.ASKED_FOR:
            return False
        if time.monotonic() - self._touched_at > HEARTBEAT_INTERVAL_S:
            self._touched_at = time.monotonic()
            touch(self._paths)
        facts = self._facts()
        if facts is not None and facts.is_waiting and facts.reason:
            self._report_state(facts)
        return facts is None or facts.is_waiting

    def log_excerpt(self) -> str:
        """The end of its log, and of what the job printed before there was one."""
        from scalable_nb.batch_system.job_logs import logs_of_job

        words = [f"Its log ({self._paths.host_log}) says:\n{last_lines(self._paths.host_log)}"]
        words += [
            f"The job's output ({path}) says:\n{last_lines(path)}"
            for path in logs_of_job(self._logs, self.job_id)
            if path.stat().st_size
        ]
        return "\n".join(words)

    def end(self) -> None:
        """Cancel the job; a host that has begun ends the jobs of its workers first."""
        cancel_jobs(self._provider, [self.job_id])
        self._queue.look_soon()
        deadline = time.monotonic() + _END_GRACE_S
        while time.monotonic() < deadline and not self.has_ended():
            time.sleep(self.poll_s)

    def _report_state(self, facts: JobFacts) -> None:
        if facts.reason == self._reported_reason:
            return
        self._reported_reason = facts.reason
        logger.warning(
            "%s job %s, the session's host, is %s (%s)%s. Ctrl-C cancels it.",
            self.system, self.job_id, facts.state, facts.reason, _expected(facts),
        )  # fmt: skip

    def _facts(self) -> JobFacts | None:
        return self._queue.facts(self.job_id)

    async def _outcome(self) -> JobFacts | None:
        from scalable_nb.batch_system.job_logs import logs_of_job
        from scalable_nb.batch_system.job_outcomes import JobOutcomes, LostJob

        facts = self._facts()
        began_at = facts.started_at if facts is not None else None
        answer: asyncio.Future[JobFacts | None] = asyncio.get_running_loop().create_future()
        JobOutcomes(self._queue).query(
            LostJob(
                self.job_id,
                began_at or self._asked_at,
                lambda: logs_of_job(self._logs, self.job_id),
                None,
                answer.set_result,
            )
        )
        return await answer


def submit_host(paths: RunPaths, loaded: LoadedManifest) -> HostJob:
    """Submit the host of a run.

    Raises
    ------
    StartError
        When the batch system refuses; carries the command and what it said.
    """
    from scalable_nb.batch_system.job_logs import log_folder
    from scalable_nb.batch_system.job_queue import session_job

    target = loaded.target
    logs, name = log_folder(loaded, paths), job_name(target, paths.run_id[-6:])
    write_state(paths, HostState.ASKED_FOR)
    paths.host_log.touch(mode=0o600)
    cls: Any = session_job(target.provider)
    keywords = host_keywords(target, str(paths.folder))
    session = {"job_name": name, "log_directory": str(logs), "script_folder": paths.folder}
    job = cls(**keywords | session)
    try:
        run_coroutine(job.start())
        if job.failure is not None:
            raise StartError(
                f"the job of the session's host could not be submitted.\n{job.failure}\n"
                "`%scalable plan` shows what is submitted; `host_job:` of the target in "
                "scalable.yaml says what it asks for."
            )
        about = {"provider": target.provider, "job_id": job.job_id, "name": name}
        _write_job(paths, {**about, "logs": str(logs)})
    except BaseException:
        if job.job_id is not None:
            cancel_jobs(target.provider, [job.job_id])
        raise
    host = HostJob(paths, **about, logs=logs)
    logger.warning(
        "The session's host is %s job %s; this waits until it runs (Ctrl-C cancels it). %s"
        "Its log: %s", host.system, host.job_id, host.advice(), paths.host_log,
    )  # fmt: skip
    return host


def sign_host_job(paths: RunPaths) -> None:
    """Sign ``host-job.json`` as it is; does nothing without one."""
    about = read_object(paths.host_job_json)
    if is_job_id(about.get("job_id")):
        _write_job(paths, about)


def _write_job(paths: RunPaths, about: Mapping[str, Any]) -> None:
    signature = sign_job(paths.run_id, about["provider"], about["job_id"])
    text = json.dumps({**about, "signature": signature})
    write_private(paths.host_job_json, text.encode())


def last_lines(path: Path) -> str:
    """Return the last lines of a log, indented."""
    try:
        lines = read_last_lines(path, _LOG_LINES)
    except FileNotFoundError:
        return "  (no log)"
    except RunFolderError as error:
        return f"  ({error})"
    return "\n".join(f"  {plain_text(line)}" for line in lines) or "  (the log is empty)"


def run_coroutine(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a new event loop and return its result.

    In a notebook the calling thread runs an event loop already, so this is another thread. It
    ends before an interrupt of the wait reaches the caller: what the coroutine began is known.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


def _expected(facts: JobFacts) -> str:
    if facts.estimated_start_at is None:
        return ""
    at = datetime.fromtimestamp(facts.estimated_start_at).astimezone()
    return f"; its start is expected at {at:%Y-%m-%d %H:%M}"
