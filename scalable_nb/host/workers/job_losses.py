"""What the end of a batch job means for the tasks that were on its workers.

The nanny knows how its worker process ended, but not why the batch system ended both: that is
looked up, and until it is known the tasks are parked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from time import time
from typing import TYPE_CHECKING, Any, Final

from dask.utils import format_bytes

from scalable_nb.batch_system.job_outcomes import JobOutcomes, LostJob
from scalable_nb.batch_system.job_state import JobFacts, outcome_text
from scalable_nb.errors.worker_errors import OutOfMemoryError
from scalable_nb.faults.decision import WorkerLossCause
from scalable_nb.host.tasks.task import FailedAttempt
from scalable_nb.protocol.exit_report import ExitCause

if TYPE_CHECKING:
    from scalable_nb.protocol.exit_report import ExitReport
    from scalable_nb.targets.fleet import WorkerGroup
    from scalable_nb.targets.jobqueue_fleet import JobFleet

#: What each final state of a job costs a task; any other is a crash.
_LOSS_OF: Final = {
    "BOOT_FAIL": WorkerLossCause.NODE_FAILURE,
    "CANCELLED": WorkerLossCause.SCANCEL,
    "COMPLETED": WorkerLossCause.SCALE_DOWN,
    "DEADLINE": WorkerLossCause.WALLTIME,
    "NODE_FAIL": WorkerLossCause.NODE_FAILURE,
    "OUT_OF_MEMORY": WorkerLossCause.OUT_OF_MEMORY,
    "PREEMPTED": WorkerLossCause.PREEMPTION,
    "REQUEUED": WorkerLossCause.REQUEUE,
    "REVOKED": WorkerLossCause.SCANCEL,
    "TIMEOUT": WorkerLossCause.WALLTIME,
}

#: An attempt that had this share of its job's walltime had all of it: starting takes the rest.
_WHOLE: Final = 0.9


@dataclass
class _WorkerJob:
    """The job that a worker belongs to; names are used again, addresses are not."""

    entry: WorkerGroup
    came_at: float
    question: LostJob | None = None
    is_answered: bool = False
    outcome: JobFacts | None = None


class JobLosses:
    """Knows which worker was in which job, and how that ended: the source of `WorkerLosses`.

    Parameters
    ----------
    fleet : JobFleet
    """

    def __init__(self, fleet: JobFleet) -> None:
        self._fleet = fleet
        self._queue = fleet.queue
        self._outcomes = JobOutcomes(fleet.queue)
        self._jobs: dict[str, _WorkerJob] = {}

    def on_added(self, worker: str, name: object) -> Callable[[], str | None] | None:
        """Note the job of a worker while both are there; return what gives the job's id."""
        entry = self._fleet.entry_of(name)
        if entry is None:
            return None
        self._jobs[worker] = _WorkerJob(entry, time())
        self._queue.look_soon()
        return partial(self._fleet.job_id_of, entry)

    def _job_id_of(self, worker: str) -> str | None:
        job = self._jobs.get(worker)
        return self._fleet.job_id_of(job.entry) if job is not None else None

    def must_wait(
        self,
        worker: str,
        report: ExitReport | None,
        on_outcome: Callable[[str], None],
        *,
        is_expected: bool,
    ) -> bool:
        """Whether the outcome of a lost worker's job has to be found out first.

        Parameters
        ----------
        worker : str
        report : ExitReport or None
            The nanny's word, if it has come.
        on_outcome : callable
            Called with the worker when the outcome is known, or nobody can say.
        is_expected : bool
            Whether the worker had said goodbye to the scheduler.
        """
        job, job_id = self._jobs.get(worker), self._job_id_of(worker)
        if job is None or job_id is None or job.is_answered or not self._queue.reports_states:
            return False
        if _is_of_process(report):  # the nanny is in the job: it runs on
            self._outcomes.drop(job.question)
            return False
        if report is None and is_expected and job.entry.is_leaving:  # we ended it
            return False
        if job.question is None:
            job.question = self._question(job, job_id, worker, on_outcome)
            self._outcomes.query(job.question)
        return True

    def _question(
        self, job: _WorkerJob, job_id: str, worker: str, on_outcome: Callable[[str], None]
    ) -> LostJob:
        def answer(outcome: JobFacts | None) -> None:
            job.outcome, job.is_answered = outcome, True
            on_outcome(worker)

        logs = self._fleet.logs_of
        before = self._queue.last_running(job_id)
        return LostJob(job_id, job.came_at, lambda: logs(job.entry), before, answer)

    def has_ended(self, worker: str) -> bool:
        """Whether a lost worker's job is known to have ended, and not by us."""
        job = self._jobs.get(worker)
        return job is not None and job.outcome is not None

    def amend(
        self,
        label: str,
        worker: str,
        failure: FailedAttempt,
        loss: WorkerLossCause,
        report: ExitReport | None,
    ) -> tuple[FailedAttempt, WorkerLossCause]:
        """Put what is known of a worker's job into the record of an attempt.

        Parameters
        ----------
        label : str
            The call as a person reads it.
        worker : str
        failure : FailedAttempt
            As the nanny tells it.
        loss : WorkerLossCause
            What follows from that.
        report : ExitReport or None
            The nanny's word itself.
        """
        job, job_id = self._jobs.get(worker), self._job_id_of(worker)
        if job is None or job_id is None:
            return failure, loss
        last = self._queue.facts(job_id)
        failure = replace(failure, job_id=job_id, host=(last and last.node) or failure.host)
        if _is_of_process(report) and self._queue.reports_states:
            return replace(failure, job_state="RUNNING"), loss
        if not job.is_answered:
            return failure, loss
        if job.outcome is None:
            where = f"{self._queue.system} job {job_id}"
            message = f"{label}: worker lost: what became of {where} is unknown"
            return replace(failure, message=message), loss
        return self._of_outcome(job.entry, job.outcome, failure, label)

    def _of_outcome(
        self, entry: WorkerGroup, outcome: JobFacts, failure: FailedAttempt, label: str
    ) -> tuple[FailedAttempt, WorkerLossCause]:
        message = f"{label}: worker lost: {outcome_text(self._queue.system, outcome)}"
        loss = _LOSS_OF.get(outcome.state, WorkerLossCause.CRASH)
        values: dict[str, Any] = {}
        if outcome.is_out_of_memory:
            loss = WorkerLossCause.OUT_OF_MEMORY
            if outcome.memory_limit_bytes:
                used = format_bytes(outcome.max_rss_bytes or 0)
                message += (
                    f", using {used} of its limit of {format_bytes(outcome.memory_limit_bytes)}"
                )
            values = {
                "failure_class": OutOfMemoryError.__name__,
                "category": "resource",
                "memory_limit_bytes": outcome.memory_limit_bytes or failure.memory_limit_bytes,
            }
        elif loss is WorkerLossCause.WALLTIME and _had_all(failure, entry.kind.walltime_s):
            loss = WorkerLossCause.WHOLE_WALLTIME
            message += ", all of which this attempt had to itself: it needs a longer `walltime:`"
        amended = replace(
            failure,
            message=message,
            host=outcome.node or failure.host,
            job_state=outcome.state,
            exit_code=-outcome.signal if outcome.signal else outcome.exit_code,
            memory_bytes=max(failure.memory_bytes or 0, outcome.max_rss_bytes or 0) or None,
            details={"log_tail": list(outcome.log_tail), "job_source": outcome.source},
            **values,
        )
        return amended, loss


def _is_of_process(report: ExitReport | None) -> bool:
    """Whether the nanny says that only its worker process ended, not the job."""
    return report is not None and report.cause is not ExitCause.TERMINATED


def _had_all(failure: FailedAttempt, walltime_s: float | None) -> bool:
    duration_s = failure.duration_s
    return walltime_s is not None and duration_s is not None and duration_s >= _WHOLE * walltime_s
