"""Follows each job of a session through the queue, and says so."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import time
from typing import TYPE_CHECKING, Any, Final

from scalable_nb.batch_system.job_logs import likely_cause, read_tail
from scalable_nb.batch_system.job_state import JobFacts, JobPhase, job_phase
from scalable_nb.dask_adapter.scheduler import SchedulerAdapter
from scalable_nb.host.notices import Notices
from scalable_nb.host.tasks.run_recorder import RunRecorder

if TYPE_CHECKING:
    from scalable_nb.targets.fleet import WorkerGroup
    from scalable_nb.targets.jobqueue_fleet import JobFleet

#: A job that has run for so long without a worker is reported.
SILENCE_S: Final = 60.0

_LOG_LINES: Final = 12

#: Between these a job goes to and fro with every task: no news for the journal.
_WORKING: Final = (JobPhase.CONNECTED, JobPhase.IDLE, JobPhase.BUSY)


@dataclass
class _MonitoredJob:
    entry: WorkerGroup
    phase: JobPhase = JobPhase.PENDING
    facts: JobFacts | None = None
    written: tuple[Any, ...] = ()
    has_worked: bool = False
    silent_since: float | None = None


class JobMonitor:
    """Merges what the batch system says of each job with what the scheduler sees.

    Parameters
    ----------
    fleet : JobFleet
    adapter : SchedulerAdapter
    recorder : RunRecorder
    notices : Notices
    silence_s : float
        How long a job may run without a worker, or the batch system not answer, before a
        user is notified.
    """

    def __init__(
        self,
        fleet: JobFleet,
        adapter: SchedulerAdapter,
        recorder: RunRecorder,
        notices: Notices,
        *,
        silence_s: float = SILENCE_S,
    ) -> None:
        self._fleet = fleet
        self._adapter = adapter
        self._recorder = recorder
        self._notices = notices
        self._silence_s = silence_s
        self._jobs: dict[str, _MonitoredJob] = {}
        self._reported: set[str] = set()
        self._unanswered_since: float | None = None
        self._is_outage_reported = False

    async def observe(self) -> None:
        """Bring all jobs up to date; to be called after the fleet has looked."""
        self._watch_answers()
        for name, entry in self._fleet.entries.items():
            job = self._jobs.setdefault(name, _MonitoredJob(entry))
            self._update(job)
            if self._is_silent(job):
                await self._report_silence(job)
        for name in self._jobs.keys() - self._fleet.entries.keys():
            job = self._jobs.pop(name)
            job.phase = JobPhase.ENDED
            job.facts = self._facts(job)
            self._write(job)

    def _watch_answers(self) -> None:
        error = self._fleet.queue.error
        if error is None:
            self._unanswered_since, self._is_outage_reported = None, False
            return
        self._unanswered_since = self._unanswered_since or time()
        if time() - self._unanswered_since >= self._silence_s and not self._is_outage_reported:
            self._is_outage_reported = True
            self._notices.notify(
                f"{self._fleet.queue.system} has not answered for {self._silence_s:.0f} s: what is "
                f"said of its jobs is from before, and none that ended is replaced. {error}"
            )

    def jobs(self) -> list[dict[str, Any]]:
        """What is known of each job, for kernels."""
        return [
            {
                "name": job.entry.name,
                "component": job.entry.kind.name,
                "job_id": self._fleet.job_id_of(job.entry),
                "phase": str(job.phase),
                **_row(job.facts),
            }
            for job in self._jobs.values()
        ]

    def _update(self, job: _MonitoredJob) -> None:
        entry = job.entry
        is_busy = self._is_busy(entry)
        job.has_worked |= is_busy
        job.facts = self._facts(job)
        before, job.phase = (
            job.phase,
            job_phase(
                job.facts.state if job.facts is not None else "",
                is_connected=entry.is_connected,
                was_connected=entry.began_at is not None,
                is_busy=is_busy,
                has_worked=job.has_worked,
            ),
        )
        if job.phase is JobPhase.LOST and before is not JobPhase.LOST:
            self._fleet.queue.look_soon()
        self._write(job)

    def _facts(self, job: _MonitoredJob) -> JobFacts | None:
        job_id = self._fleet.job_id_of(job.entry)
        return self._fleet.queue.facts(job_id) if job_id is not None else None

    def _is_busy(self, entry: WorkerGroup) -> bool:
        workers, aliases = self._adapter.workers, self._adapter.aliases
        addresses = (aliases.get(name) for name in entry.worker_names)
        return any(workers[a].processing for a in addresses if a is not None)

    def _write(self, job: _MonitoredJob) -> None:
        job_id = self._fleet.job_id_of(job.entry)
        if job_id is None:  # it is just being submitted
            return
        row = _row(job.facts)
        phase = JobPhase.CONNECTED if job.phase in _WORKING else job.phase
        # The estimate moves all the time; it is written with the next change.
        news = (phase, row["job_state"], row["reason"], row["host"])
        if news != job.written:
            job.written = news
            entry = job.entry
            self._recorder.job_changed(job_id, entry.name, entry.kind.name, phase=str(phase), **row)

    # --- jobs that run in vain -----------------------------------------------------------

    def _is_silent(self, job: _MonitoredJob) -> bool:
        is_running = job.facts is not None and job.facts.state == "RUNNING"
        if job.phase is not JobPhase.STARTING or not is_running:
            job.silent_since = None
            return False
        job.silent_since = job.silent_since or time()
        return time() - job.silent_since >= self._silence_s

    async def _report_silence(self, job: _MonitoredJob) -> None:
        kind = job.entry.kind.name
        if kind in self._reported:  # what is wrong with one is wrong with all of them
            return
        self._reported.add(kind)
        lines = await asyncio.to_thread(read_tail, lambda: self._fleet.logs_of(job.entry))
        cause = likely_cause(lines)
        node = f" on {job.facts.node}" if job.facts is not None and job.facts.node else ""
        of = f" of component {kind!r}" if kind else ""
        excerpt = "\n".join(lines[-_LOG_LINES:])
        self._notices.notify(
            f"{self._fleet.queue.system} job {self._fleet.job_id_of(job.entry)}{of} has been "
            f"running{node} for {self._silence_s:.0f} s, and no worker of it has connected."
            + (f" Perhaps {cause}." if cause else "")
            + (f" It said:\n{excerpt}" if excerpt else "")
        )


def _row(facts: JobFacts | None) -> dict[str, Any]:
    return {
        "job_state": facts.state if facts is not None else None,
        "reason": facts.reason if facts is not None else None,
        "estimated_start_at": facts.estimated_start_at if facts is not None else None,
        "host": facts.node if facts is not None else None,
    }
