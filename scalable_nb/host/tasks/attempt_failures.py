"""Decide about failed attempts: retry the task or fail it.

Workers and nannies report failed and expired attempts; `WorkerLosses` reports those that were
lost with a worker. Each outcome is recorded. Then the task is parked until its next attempt, or
fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import random
from time import time
from typing import Any

from scalable_nb.cache.store import ResultStore
from scalable_nb.dask_adapter.scheduler import SchedulerAdapter
from scalable_nb.errors import TaskTimeoutError
from scalable_nb.errors.worker_errors import UnknownOutcomeError
from scalable_nb.faults.decision import decide
from scalable_nb.host.tasks.batch_breakers import BatchBreakers
from scalable_nb.host.tasks.parked_tasks import ParkedTasks
from scalable_nb.host.tasks.run_recorder import RunRecorder
from scalable_nb.host.tasks.task import RECOMPUTED, RECOVERED, FailedAttempt, TrackedTask
from scalable_nb.host.tasks.task_registry import TaskRegistry
from scalable_nb.protocol.annotations import ANNOTATION, TaskAnnotation
from scalable_nb.protocol.call import result_key_of
from scalable_nb.protocol.messages import (
    AttemptExpired,
    AttemptFailed,
    ExpiryReply,
    FailureReply,
    PermitReply,
    PermitRequest,
)
from scalable_nb.telemetry.rows import utc_iso


@dataclass(frozen=True, slots=True)
class _Permit:
    worker: str
    run_id: int
    granted_at: float


class AtMostOnceGuard:
    """One permit per non-idempotent task, granted once.

    Dask sends a task again whenever it does not know that it was done: after a lost worker, a
    cut connection, a cancellation that came too late. Before the function is called the attempt
    requests the permit of its task, so that only one of them calls it. Permits outlive their
    tasks: a call that was cancelled may still run when the same call is submitted again.
    """

    def __init__(self) -> None:
        self._granted: dict[Any, _Permit] = {}

    def acquire(self, key: Any, worker: str, run_id: int) -> bool:
        """Grant the permit of a task to an attempt on a worker; return whether it was granted.

        The same attempt, known by its `run_id`, is granted it again: it asks twice if the
        connection broke before the answer arrived, and has called nothing until then.
        """
        permit = self._granted.setdefault(key, _Permit(worker, run_id, time()))
        return (permit.worker, permit.run_id) == (worker, run_id)

    def is_held_by(self, key: Any, worker: str) -> bool:
        """Return whether an attempt on this worker has the permit."""
        permit = self._granted.get(key)
        return permit is not None and permit.worker == worker

    def refusal_text(self, key: Any) -> str:
        """Return where and when the permit was granted, as part of a sentence."""
        permit = self._granted[key]
        return f"was called at {utc_iso(permit.granted_at)} on {permit.worker}"

    def reset(self, key: Any) -> None:
        """Take the permit back: the call's outcome is known, or the user wants another call."""
        self._granted.pop(key, None)


class AttemptFailures:
    """Decides about attempts that failed, expired, were lost, or may not start.

    Parameters
    ----------
    registry : TaskRegistry
    recorder : RunRecorder
    adapter : SchedulerAdapter
    parked : ParkedTasks
    breakers : BatchBreakers
    at_most_once : AtMostOnceGuard
    on_retry : callable
        Called with a failed attempt whose task runs again.
    """

    def __init__(
        self,
        registry: TaskRegistry,
        recorder: RunRecorder,
        adapter: SchedulerAdapter,
        parked: ParkedTasks,
        breakers: BatchBreakers,
        at_most_once: AtMostOnceGuard,
        on_retry: Callable[[TrackedTask, FailedAttempt], None],
    ) -> None:
        self._registry = registry
        self._recorder = recorder
        self._ledger = recorder.ledger
        self._adapter = adapter
        self._parked = parked
        self._breakers = breakers
        self._at_most_once = at_most_once
        self._on_retry = on_retry

    # --- attempts that must not be repeated ----------------------------------------

    def acquire_permit(self, request: PermitRequest) -> PermitReply:
        """Grant or refuse the permit to call a function that must not be called twice."""
        key, worker, run_id = request.key, request.worker, request.run_id
        tracked = self._running_record(key, worker, run_id)
        if tracked is None:
            return PermitReply(is_granted=False)
        if self._at_most_once.acquire(key, worker, run_id):
            return PermitReply(is_granted=True)
        return PermitReply(
            is_granted=False,
            refusal=f"{tracked.label} {self._at_most_once.refusal_text(key)}, and nobody knows "
            "how far it came. The task is not idempotent, so it is not called again; `resubmit` "
            "does it when the task is named.",
        )

    def recover(self, tracked: TrackedTask) -> bool:
        """Give a task that was lost with its worker its result, if that had been stored."""
        ts = self._adapter.tasks[tracked.key]
        annotation = TaskAnnotation.from_wire((ts.annotations or {}).get(ANNOTATION) or {})
        result_key = result_key_of(ts.run_spec) if annotation.store else ""
        # Once: an unreadable file would be tried again and again.
        is_new = bool(result_key) and tracked.reason != RECOVERED and not annotation.recompute
        if not is_new or not ResultStore(Path(annotation.store)).contains(result_key):
            return False
        tracked.reason = RECOVERED
        self.resume(tracked)
        return True

    # --- attempts fail -----------------------------------------------------------

    def attempt_failed(self, message: AttemptFailed) -> FailureReply:
        """Record an exception that a worker reports; return whether the task is retried."""
        tracked = self._running_record(message.key, message.worker, message.run_id)
        if tracked is None:  # cancelled or lost meanwhile: no client waits for this attempt
            return FailureReply(will_retry=False, is_recorded=False)
        if tracked.is_reported:  # repeated: the connection broke before the reply arrived
            return FailureReply(will_retry=not tracked.is_given_up, is_recorded=True)
        failure = FailedAttempt.reported(message.error, message.worker)
        if failure.failure_class != UnknownOutcomeError.__name__:
            self._at_most_once.reset(message.key)  # the outcome of the call is known
        tracked.exception = message.exception
        will_retry = self.settle(tracked, failure, verdict=message.verdict)
        return FailureReply(will_retry=will_retry, is_recorded=True)

    def attempt_expired(self, message: AttemptExpired) -> ExpiryReply:
        """Record an attempt that exceeded its time limit; return whether to kill its worker.

        The worker is not killed while it calls a function that must not be called twice: the
        nanny repeats its report.
        """
        key = self._registry.key_of(message.name)
        tracked = self._running_record(key, message.worker, message.run_id)
        if tracked is not None and tracked.is_reported:
            return ExpiryReply(must_kill=False, is_settled=False)  # it has just finished
        is_harmless = not any(map(self._is_non_idempotent, message.neighbours))
        if tracked is None:  # cancelled or settled: it only blocks its thread
            return ExpiryReply(must_kill=is_harmless, is_settled=False)
        if is_harmless:
            # Send no more tasks to a worker that is about to be killed.
            self._adapter.pause_worker(message.worker, "timeout")
        self._time_out(tracked, message)
        return ExpiryReply(must_kill=is_harmless, is_settled=True)

    def _time_out(self, tracked: TrackedTask, expired: AttemptExpired) -> None:
        message = f"{tracked.label} ran longer than its limit of {tracked.terms.timeout_s:g} s"
        if tracked.reason == RECOMPUTED:
            message += " when it was computed again, its result having been lost with a worker"
        failure = FailedAttempt(
            failure_class="TaskTimeoutError",
            message=message,
            category="timeout",
            fingerprint=tracked.fingerprint_of("TaskTimeoutError"),
            error_module="scalable_nb.errors",
            started_at=expired.started_at,
            duration_s=expired.duration_s,
            worker=expired.worker,
            memory_bytes=expired.memory_bytes or None,
            memory_limit_bytes=self._adapter.workers[expired.worker].memory_limit,
        )
        if self.settle(tracked, failure):
            self._adapter.release(tracked.key, "timeout")
        else:
            self.fail(tracked, TaskTimeoutError(f"{message} (attempt {tracked.attempts})"))

    def _is_non_idempotent(self, name: str) -> bool:
        tracked = self._registry.get(self._registry.key_of(name))
        return tracked is not None and not tracked.terms.idempotent

    def settle(
        self,
        tracked: TrackedTask,
        failure: FailedAttempt,
        *,
        verdict: str | None = None,
        loss: str | None = None,
    ) -> bool:
        """Decide about a failed attempt, record it, and park the task if it is retried."""
        decision = decide(
            tracked.terms,
            category=failure.category,
            attempt=tracked.attempts - tracked.attempts_at_start + 1,
            retries_used=tracked.retries_used,
            losses_used=tracked.losses_used,
            verdict=verdict,
            loss=loss,
            random=random,
        )
        tracked.retries_used += decision.charged == "retries"
        tracked.losses_used += decision.charged == "worker_losses"
        self._recorder.end_attempt(
            tracked, failure, retry_in_s=decision.retry_in_s, is_final=not decision.will_retry
        )
        if decision.will_retry:
            delay_s = decision.retry_in_s or 0.0
            self._on_retry(tracked, failure)
            # If its batch was paused meanwhile, it waits until the user resumes the batch.
            self._parked.park(tracked, None if tracked.is_paused else delay_s)
            self._ledger.set(tracked.row, retry_at=time() + delay_s)
        else:
            self._breakers.on_failure(tracked, failure)
        return decision.will_retry

    def resume(self, tracked: TrackedTask) -> None:
        """Unpark a task that was parked until its outcome was known."""
        if not tracked.is_paused:
            self._parked.unpark(tracked)

    def fail(self, tracked: TrackedTask, error: Exception | bytes) -> None:
        """Fail a task, with an exception or one that a worker pickled."""
        self._parked.drop(tracked)
        self._adapter.fail(tracked.key, error)

    def _running_record(self, key: Any, worker: str, run_id: int) -> TrackedTask | None:
        """Return the task of a current attempt, or None if that was cancelled or lost.

        The same task may be on the same worker again: only the run id differs.
        """
        tracked, ts = self._registry.get(key), self._adapter.tasks.get(key)
        if tracked is None or ts is None or ts.processing_on is None or ts.run_id != run_id:
            return None
        return tracked if ts.processing_on.address == worker else None
