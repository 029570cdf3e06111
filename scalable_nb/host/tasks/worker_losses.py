"""What the end of a worker means for the tasks that were on it.

The scheduler notices that a worker is gone; what it was executing and what it died of is
known to its nanny, whose word arrives a moment earlier or later. Until both are there the
tasks are held.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from time import time
from typing import Any, Final, Protocol

from dask.utils import format_bytes

from scalable_nb.dask_adapter.scheduler import SchedulerAdapter
from scalable_nb.errors.worker_errors import OutOfMemoryError, UnknownOutcomeError, WorkerLostError
from scalable_nb.faults.decision import WorkerLossCause
from scalable_nb.host.tasks.attempt_failures import AtMostOnceGuard, AttemptFailures
from scalable_nb.host.tasks.parked_tasks import ParkedTasks
from scalable_nb.host.tasks.task import FailedAttempt, TrackedTask
from scalable_nb.host.tasks.task_registry import TaskRegistry
from scalable_nb.protocol.exit_report import ExitCause, ExitReport, Span
from scalable_nb.protocol.messages import WorkerExited, WorkerMessage
from scalable_nb.protocol.operations import Operation

logger = logging.getLogger(__name__)

#: How long the nanny's word is waited for before nobody can know.
REPORT_GRACE_S: Final = 5.0
#: When a nanny that said nothing is told that the connection to its worker is lost. A worker
#: process that died is reported long before.
_CUT_GRACE_S: Final = 1.0
_REPORT_KEPT_S: Final = 60.0

_LOSSES: Final = {
    ExitCause.MEMORY: WorkerLossCause.OUT_OF_MEMORY,
    ExitCause.KERNEL: WorkerLossCause.OUT_OF_MEMORY,
    ExitCause.TIMEOUT: WorkerLossCause.NEIGHBOUR,
    ExitCause.STOPPED: WorkerLossCause.CRASH,
    ExitCause.REPLACED: WorkerLossCause.SCALE_DOWN,
    ExitCause.CUT: WorkerLossCause.CONNECTION,
    ExitCause.EXIT: WorkerLossCause.CRASH,
    ExitCause.TERMINATED: WorkerLossCause.SCANCEL,
    ExitCause.INPUT: WorkerLossCause.NEIGHBOUR,
    ExitCause.REVOKED: WorkerLossCause.NEIGHBOUR,
}

_WORDS: Final = {
    ExitCause.STOPPED: "the worker process was stopped, did not go on, and was ended",
    ExitCause.REPLACED: "the worker process was replaced: it had an older version of a module",
    ExitCause.CUT: "the connection between the worker and the scheduler broke",
    ExitCause.TERMINATED: "the batch system ended the worker's job",
    ExitCause.INPUT: "one of its inputs was lost with another worker, and Dask took it back",
    ExitCause.REVOKED: "Dask took it back",
}


def exit_message(report: ExitReport) -> str:
    """Return what ended the process, as part of a sentence."""
    if report.cause.is_memory:
        used = format_bytes(report.memory_bytes or 0)
        limit = format_bytes(report.memory_limit_bytes or 0)
        if report.cause is ExitCause.MEMORY:
            return f"the worker used {used} of its limit of {limit} and was ended"
        return (
            "the worker was ended by the kernel for want of memory; it was last seen with "
            f"{used}, and all processes together may use {limit}"
        )
    if report.cause in _WORDS:
        return _WORDS[report.cause]
    code = report.exit_code or 0
    if code >= 0:
        return f"the worker process exited with code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    hint = ", perhaps by the kernel for want of memory" if name == "SIGKILL" else ""
    return f"the worker process was ended by {name}{hint}"


async def _unless_broken(notification: Awaitable[Any]) -> None:
    try:
        await notification
    except OSError:
        # The nanny is cut off as well: what its worker was executing nobody can know.
        logger.info("a nanny could not be told that its worker is lost", exc_info=True)


class JobLossSource(Protocol):
    """The batch jobs of workers; see `JobLosses`."""

    def on_added(self, worker: str, name: object) -> Callable[[], str | None] | None:
        """Note the job of a new worker; return what gives the job's id, which may come later."""

    def must_wait(
        self,
        worker: str,
        report: ExitReport | None,
        on_outcome: Callable[[str], None],
        *,
        is_expected: bool,
    ) -> bool:
        """Return whether a job's outcome has to be found out first; `on_outcome` is called then."""

    def has_ended(self, worker: str) -> bool:
        """Return whether a lost worker's job is known to have ended by itself."""

    def amend(
        self,
        label: str,
        worker: str,
        failure: FailedAttempt,
        loss: WorkerLossCause,
        report: ExitReport | None,
    ) -> tuple[FailedAttempt, WorkerLossCause]:
        """Return the record of an attempt with what is known of its worker's job."""


class WorkerLosses:
    """Settles the attempts that ended with their worker.

    Parameters
    ----------
    registry : TaskRegistry
    adapter : SchedulerAdapter
    parked : ParkedTasks
    at_most_once : AtMostOnceGuard
    failures : AttemptFailures
    jobs : JobLossSource or None
        None if workers do not run in batch jobs.
    """

    def __init__(
        self,
        registry: TaskRegistry,
        adapter: SchedulerAdapter,
        parked: ParkedTasks,
        at_most_once: AtMostOnceGuard,
        failures: AttemptFailures,
        jobs: JobLossSource | None,
    ) -> None:
        self._registry = registry
        self._adapter = adapter
        self._parked = parked
        self._at_most_once = at_most_once
        self._failures = failures
        self._jobs = jobs
        self._lost: dict[str, list[TrackedTask]] = {}
        self._unexpected: set[str] = set()
        self._reports: dict[str, ExitReport] = {}
        self._nannies: dict[str, str] = {}

    def on_added(
        self, worker: str, name: object, nanny: str | None
    ) -> Callable[[], str | None] | None:
        """Note a new worker and its nanny; return what gives the id of its batch job, if any."""
        if nanny:
            self._nannies[worker] = nanny
        return self._jobs.on_added(worker, name) if self._jobs is not None else None

    def on_leaving(self, worker: str, *, is_expected: bool) -> None:
        """The scheduler is about to take its tasks back from a worker that goes or is gone."""
        if not is_expected:
            self._unexpected.add(worker)

    def suspect(self, tracked: TrackedTask) -> None:
        """Park a task of a lost worker until its outcome is known."""
        if tracked.is_parked:
            return  # its attempt had been settled before the worker went
        self._parked.park(tracked, None)
        self._lost.setdefault(tracked.worker, []).append(tracked)

    def on_removed(self, worker: str, revoked: Iterable[TrackedTask]) -> None:
        """The scheduler has removed a worker; all its tasks are suspect by now.

        So are those that had been ``revoked`` before and that it had yet to report on.
        """
        for tracked in revoked:
            self._lost.setdefault(worker, []).append(tracked)
        nanny = self._nannies.pop(worker, None)
        is_known = worker in self._reports or worker not in self._unexpected
        if nanny is not None and not is_known:
            self._adapter.call_later(_CUT_GRACE_S, self._notify_nanny, nanny, worker)
        if self._must_wait(worker):
            return
        if is_known:
            self._settle(worker)
        else:
            self._adapter.call_later(REPORT_GRACE_S, self._settle, worker)

    def _notify_nanny(self, nanny: str, worker: str) -> None:
        if worker in self._lost:
            message = WorkerMessage(worker).to_wire()
            called = self._adapter.call_nanny(nanny, Operation.WORKER_LOST.value, **message)
            self._adapter.call_soon(_unless_broken, called)

    def report(self, message: WorkerExited) -> None:
        """Note the exit report that a nanny sent, and settle the tasks of its worker."""
        worker = message.worker
        self._reports[worker] = message.report
        self._adapter.call_later(_REPORT_KEPT_S, self._reports.pop, worker, None)
        if worker in self._lost:
            self._settle(worker)

    def _must_wait(self, worker: str) -> bool:
        """Return whether the batch system must be queried first; it settles the worker then."""
        if self._jobs is None or worker not in self._lost:
            return False
        return self._jobs.must_wait(
            worker,
            self._reports.get(worker),
            self._settle,
            is_expected=worker not in self._unexpected,
        )

    def _settle(self, worker: str) -> None:
        if self._must_wait(worker):
            return
        report = self._reports.pop(worker, None)
        is_unexpected = worker in self._unexpected or report is not None
        is_unexpected |= self._jobs is not None and self._jobs.has_ended(worker)
        self._unexpected.discard(worker)
        for tracked in self._lost.pop(worker, ()):
            self._settle_task(tracked, worker, report, is_unexpected=is_unexpected)

    def settle_revoked(self, tracked: TrackedTask, worker: str, report: ExitReport) -> None:
        """Settle a revoked task with the report of its running worker."""
        self._settle_task(tracked, worker, report, is_unexpected=True)

    def _settle_task(
        self, tracked: TrackedTask, worker: str, report: ExitReport | None, *, is_unexpected: bool
    ) -> None:
        is_same = self._registry.get(tracked.key) is tracked
        if not is_same or not tracked.is_parked:
            return  # cancelled meanwhile, and perhaps submitted again
        if tracked.is_reported and tracked.is_given_up:
            # The task had failed; only the last message of the worker was lost.
            self._failures.fail(tracked, tracked.exception)
        elif tracked.is_reported or not self._may_have_run(
            tracked, worker, report, is_unexpected=is_unexpected
        ):
            self._failures.resume(tracked)
        elif not self._failures.recover(tracked):
            self._settle_attempt(tracked, worker, report, is_unexpected=is_unexpected)

    def _may_have_run(
        self, tracked: TrackedTask, worker: str, report: ExitReport | None, *, is_unexpected: bool
    ) -> bool:
        if not tracked.terms.idempotent:
            # Known for sure, also of a worker that was retired: it asked before it called.
            return self._at_most_once.is_held_by(tracked.key, worker)
        if report is not None:
            return self._span(tracked, report) is not None
        return is_unexpected

    def _span(self, tracked: TrackedTask, report: ExitReport) -> Span | None:
        """Start and end of a lost attempt; None for a task that was only queued.

        The end is None if the function was executing. If it had ended, only the outcome was
        lost: the worker died before the message was sent.
        """
        run_id = self._adapter.tasks[tracked.key].run_id
        return report.attempts.get(run_id)  # type: ignore[arg-type] # it was on a worker

    def _settle_attempt(
        self, tracked: TrackedTask, worker: str, report: ExitReport | None, *, is_unexpected: bool
    ) -> None:
        is_memory = report is not None and report.cause.is_memory
        error_type = OutOfMemoryError if is_memory else WorkerLostError
        words = exit_message(report) if report else "the worker was lost; nobody can say why"
        if not is_unexpected:
            words = "its worker was retired while it was executing"
        started_at, ended_at = (report and self._span(tracked, report)) or (None, None)
        if report and report.cause is ExitCause.TIMEOUT:
            words = "its worker was restarted because a neighbouring task exceeded its time limit"
        if ended_at is not None:
            words += ", after the function had ended and before its outcome arrived"
        message = f"{tracked.label}: {words}"
        failure = FailedAttempt(
            failure_class=error_type.__name__,
            message=message,
            category="resource" if is_memory else "infrastructure",
            fingerprint=tracked.fingerprint_of(error_type.__name__),
            error_module=error_type.__module__,
            traceback=report.log_excerpt if report else "",
            started_at=started_at,
            duration_s=(ended_at or time()) - started_at if started_at else None,
            worker=worker,
            exit_code=report.exit_code if report else None,
            memory_bytes=report.memory_bytes if report else None,
            memory_limit_bytes=report.memory_limit_bytes if report else None,
        )
        loss = _LOSSES[report.cause] if report else WorkerLossCause.CRASH
        if report and ended_at is not None and report.has_been_executing:
            loss = WorkerLossCause.NEIGHBOUR  # what was executing is to blame, not what had ended
        if not is_unexpected:
            loss = WorkerLossCause.SCALE_DOWN
        if self._jobs is not None:
            failure, loss = self._jobs.amend(tracked.label, worker, failure, loss, report)
            same = tracked.fingerprint_of(failure.failure_class)
            failure = replace(failure, fingerprint=same)
        if not self._failures.settle(tracked, failure, loss=loss):
            self._failures.fail(tracked, self._final_error(tracked, failure))

    def _final_error(self, tracked: TrackedTask, failure: FailedAttempt) -> WorkerLostError:
        message = failure.message
        if not tracked.terms.idempotent:
            return UnknownOutcomeError(
                f"{message}. The task is not idempotent and may have done its work, so it is not "
                "called again; `resubmit` leaves it out unless it is named."
            )
        lost = tracked.losses_used + 1
        times = "" if lost == 1 else f", {lost} times"
        if failure.failure_class != OutOfMemoryError.__name__:
            return WorkerLostError(f"{message}{times}.")
        where = f" of component {tracked.batch.component!r}" if tracked.batch.component else ""
        return OutOfMemoryError(
            f"{message}{times}. Give it more: raise `memory:`{where} in scalable.yaml, or split "
            "the task."
        )
