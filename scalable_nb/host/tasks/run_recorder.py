"""Keeps the ledger and the journal of a run in step, one task at a time."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from time import time
from typing import Any, Final

from scalable_nb.batch_system.job_queue import sign_job
from scalable_nb.faults.decision import PolicyTerms
from scalable_nb.host.tasks.input_counts import InputCounts
from scalable_nb.host.tasks.task import FailedAttempt, TaskBatch, TrackedTask
from scalable_nb.paths import RunPaths
from scalable_nb.protocol.annotations import CacheFacts
from scalable_nb.protocol.messages import AnsweredCalls, LeftOutCalls
from scalable_nb.telemetry.journal import JournalFile
from scalable_nb.telemetry.ledger import Ledger
from scalable_nb.telemetry.rows import (
    GIVEN_UP,
    SCHEMA_VERSION,
    STATE_LABELS,
    FailureRow,
    TaskRow,
    TaskState,
    key_text,
    utc_iso,
)

#: States in which a task stays until the user acts, if no task is in another unfinished state:
#: it is paused, or waits for a paused one.
NEEDS_USER: Final = frozenset({TaskState.PAUSED, TaskState.WAITING})


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a task ended, until its row is written; the columns may say more by then."""

    at: float
    state: TaskState
    attempts: int
    error: int
    reason: str | None
    worker: str
    queued_s: float | None = None
    pid: int | None = None
    memory_bytes: int | None = None
    result_bytes: int | None = None


class RunRecorder:
    """The ledger, the journal files and the sums of one run.

    Parameters
    ----------
    paths : RunPaths
    provider : str
        Of the target, e.g. ``"local"``.

    Attributes
    ----------
    inputs : InputCounts
    """

    def __init__(self, paths: RunPaths, provider: str) -> None:
        self.run_id = paths.run_id
        self.provider = provider
        self.ledger = Ledger(paths.run_id)
        self.inputs = InputCounts(self.ledger, paths.inputs)
        self.failures = JournalFile(paths.failures)
        self.tasks = JournalFile(paths.tasks)
        self.workers = JournalFile(paths.workers)
        self.cache = JournalFile(paths.cache)
        self.failures_by_class: Counter[str] = Counter()
        self.attempts = 0
        self.retries = 0
        self._worker_names: dict[str, str] = {}
        self._worker_hosts: dict[str, str] = {}
        self._job_ids: dict[str, Callable[[], str | None]] = {}

    def open(self, key: Any, batch: TaskBatch, terms: PolicyTerms) -> TrackedTask:
        """Enter a new task."""
        now = time()
        ledger = self.ledger
        preview = batch.previews.pop(key, "")
        task_id = key_text(key)
        row = ledger.row_of.get(task_id) if batch.is_known else None
        if row is None:
            values = self._columns(batch, terms, now)
            inputs = self.inputs.take(task_id)
            row = ledger.add(task_id, batch.label(key, preview), inputs=inputs, **values)
        return TrackedTask(
            key, row, batch, preview, terms, runnable_at=now, runs_to_end=batch.runs_to_end
        )

    def enter_answered(self, answered: AnsweredCalls) -> None:
        """Enter tasks that a client answered with stored results: the host never has them."""
        now = time()
        batch = TaskBatch.announced(answered.batch)
        terms = PolicyTerms()
        keys = [key_text(key) for key in batch.previews]
        labels = [batch.label(key, preview) for key, preview in batch.previews.items()]
        columns = self._columns(batch, terms, now)
        inputs = self.inputs.enter(keys, is_known=batch.is_known)
        rows = self.ledger.extend(keys, labels, state=TaskState.CACHED, **columns)
        for key, number in inputs.items():
            self.ledger.set(self.ledger.row_of[key], inputs=number)
        # They may be a hundred thousand at once, and what is written of them differs in little.
        tracked = TrackedTask(keys[0], rows[0], batch, "", terms)
        ending = _Ending(now, TaskState.CACHED, attempts=0, error=0, reason=None, worker="")
        task_row = self._task_row(tracked, ending)
        cache_row = self._cache_row(tracked, CacheFacts(event="hit"), now)
        previews = batch.previews.values()
        for key, preview, result_key in zip(keys, previews, answered.result_keys, strict=True):
            self.tasks.append(partial(dict, task_row, task_id=key, args_preview=preview))
            self.cache.append(partial(dict, cache_row, task_id=key, key=result_key))

    def enter_left_out(self, message: LeftOutCalls) -> None:
        """Enter tasks of an earlier run that do not run in this one, with their outcomes there."""
        now = time()
        batch, terms = TaskBatch.announced(message.batch), PolicyTerms()
        columns = self._columns(batch, terms, now)
        inputs = self.inputs.enter(map(key_text, batch.previews))
        outcomes = zip(message.states, message.reasons, message.errors, strict=True)
        for (key, preview), outcome in zip(batch.previews.items(), outcomes, strict=True):
            state, reason, error = TaskState(STATE_LABELS.index(outcome[0])), *outcome[1:]
            code = self.ledger.code(error)
            number = inputs.get(key_text(key), 1)
            label = batch.label(key, preview)
            row = self.ledger.add(key_text(key), label, error=code, inputs=number, **columns)
            self.ledger.set_state(row, state)
            tracked = TrackedTask(key, row, batch, preview, terms, reason=reason)
            ending = _Ending(now, state, attempts=0, error=code, reason=reason, worker="")
            self.tasks.append(partial(self._task_row, tracked, ending))

    def reopen(self, tracked: TrackedTask, terms: PolicyTerms) -> None:
        """Reset the retry budgets of a task that the user resubmitted, not its attempt count."""
        tracked.terms = terms
        tracked.retries_used = tracked.losses_used = 0
        tracked.attempts_at_start = tracked.attempts
        tracked.reason = None
        tracked.runnable_at = time()
        self.ledger.set(tracked.row, attempts_allowed=tracked.attempts_allowed, retry_at=0.0)

    def move(self, tracked: TrackedTask, component: str) -> None:
        """Move a task to the workers of another component, as the user requested."""
        if component != tracked.batch.component:
            tracked.batch = replace(tracked.batch, component=component)
            self.ledger.set(tracked.row, component=self.ledger.code(component))

    def assign(self, tracked: TrackedTask, worker: str) -> None:
        """Record that a task was sent to a worker and is queued there."""
        tracked.worker = worker
        tracked.is_reported = False
        tracked.exception = b""
        self.ledger.set_state(tracked.row, TaskState.QUEUED)
        self.ledger.set(tracked.row, retry_at=0.0)

    def begin_attempt(self, tracked: TrackedTask) -> None:
        """Record that a task got a thread of its worker."""
        ledger = self.ledger
        ledger.set_state(tracked.row, TaskState.RUNNING)
        ledger.set(
            tracked.row,
            worker=ledger.code(self.worker_name(tracked.worker)),
            host=ledger.code(self._worker_hosts.get(tracked.worker, "")),
            job=ledger.code(self._job_id_of(tracked.worker) or ""),
            attempt=tracked.attempts + 1,
            started_at=time(),
        )

    def end_attempt(
        self,
        tracked: TrackedTask,
        failure: FailedAttempt,
        *,
        retry_in_s: float | None,
        is_final: bool,
    ) -> None:
        """Record a failed attempt: one row in ``failures.jsonl``."""
        tracked.attempts += 1
        tracked.is_reported = True
        tracked.is_given_up = is_final
        self.attempts += 1
        self.retries += not is_final
        self.failures_by_class[failure.failure_class] += 1
        ledger = self.ledger
        allowed = max(tracked.attempts_allowed, tracked.attempts)
        values: dict[str, float] = {
            "attempt": tracked.attempts,
            "attempts_allowed": allowed,
            "error": ledger.code(failure.failure_class),
            "duration_s": failure.duration_s or 0.0,
        }
        if failure.started_at:
            values["started_at"] = failure.started_at
        ledger.set(tracked.row, **values)
        self.failures.append(
            self._failure_row(tracked, failure, allowed, retry_in_s, is_final, time())
        )

    def abandon_attempt(self, tracked: TrackedTask) -> None:
        """Count an attempt that ended without a known outcome."""
        tracked.attempts += 1
        self.attempts += 1

    def find_again(self, tracked: TrackedTask) -> None:
        """Record that a lost result was found again without another call."""
        self.ledger.set_state(tracked.row, TaskState.SUCCEEDED)
        self.ledger.set(tracked.row, attempt=tracked.attempts, started_at=tracked.succeeded_at)

    def give_up(self, tracked: TrackedTask) -> None:
        """Take back the retry that was recorded with the last failed attempt."""
        tracked.reason = GIVEN_UP
        tracked.is_given_up = True
        self.retries -= 1

    def finish(
        self,
        tracked: TrackedTask,
        state: TaskState,
        *,
        reason: str | None = None,
        started_at: float | None = None,
        duration_s: float | None = None,
        pid: int | None = None,
        memory_bytes: int | None = None,
        result_bytes: int | None = None,
    ) -> None:
        """Record the final state of a task: one row in ``tasks.jsonl``.

        If the task succeeded, the row contains start, duration and process of the successful
        attempt, and the known peak memory of this process. Its reason is the given one, or that
        of the last attempt.
        """
        ledger = self.ledger
        row = tracked.row
        ledger.set_state(row, state)
        if started_at is not None and duration_s is not None:
            ledger.set(row, started_at=started_at, duration_s=duration_s)
        if state is TaskState.SUCCEEDED:
            tracked.attempts += 1
            self.attempts += 1
            ledger.set(row, attempt=tracked.attempts)
        ending = _Ending(
            at=time(),
            state=state,
            attempts=tracked.attempts,
            error=ledger.columns["error"][row],
            reason=reason or tracked.reason,
            worker=tracked.worker,
            queued_s=tracked.queued_s(started_at),
            pid=pid,
            memory_bytes=memory_bytes,
            result_bytes=result_bytes,
        )
        self.tasks.append(lambda: self._task_row(tracked, ending))

    def record_cache(self, tracked: TrackedTask, facts: CacheFacts) -> None:
        """Record a stored result that was found or written, or could not be, in ``cache.jsonl``."""
        now = time()
        self.cache.append(lambda: self._cache_row(tracked, facts, now))

    def worker_name(self, address: str) -> str:
        """Return the name of a worker, also after it left."""
        return self._worker_names.get(address, address)

    def addresses_of(self, name: str) -> list[str]:
        """Return the addresses that workers of this name have had."""
        return [address for address, known in self._worker_names.items() if known == name]

    def worker_came(
        self,
        address: str,
        name: str,
        host: str,
        threads: int,
        job_id_of: Callable[[], str | None] | None = None,
    ) -> None:
        """Record that a worker connected: one row in ``workers.jsonl``.

        `job_id_of` is called for each row: a worker may connect before its job's id is known.
        """
        if job_id_of is not None:
            self._job_ids[address] = job_id_of
        self._worker_names[address] = name
        is_here = host.startswith("127.") or host == "::1"
        self._worker_hosts[address] = platform.node() if is_here else host
        self._worker_row("worker-connected", address, threads)

    def _job_id_of(self, address: str) -> str | None:
        job_id_of = self._job_ids.get(address)
        return job_id_of() if job_id_of is not None else None

    def worker_left(self, address: str) -> None:
        """Record that a worker left: one row in ``workers.jsonl``."""
        self._worker_row("worker-left", address, None)

    def _worker_row(self, event: str, worker: str, threads: int | None) -> None:
        self.workers.append(
            {
                "run_id": self.run_id,
                "schema_version": SCHEMA_VERSION,
                "event_type": event,
                "timestamp": utc_iso(time()),
                "worker": self.worker_name(worker),
                "address": worker,
                "threads": threads,
            }
        )

    def job_changed(self, job_id: str, name: str, component: str, **facts: Any) -> None:
        """Record a job's new phase or waiting reason: one row in ``workers.jsonl``."""
        self.workers.append(
            {
                "run_id": self.run_id,
                "schema_version": SCHEMA_VERSION,
                "event_type": "job-changed",
                "timestamp": utc_iso(time()),
                "worker": name,
                "component": component,
                "job_id": job_id,
                **facts,
            }
        )

    def job_submitted(self, job_id: str, name: str, component: str) -> None:
        """Record a submitted job: one row in ``workers.jsonl``, by which others find it."""
        self.workers.append(
            {
                "run_id": self.run_id,
                "schema_version": SCHEMA_VERSION,
                "event_type": "job-submitted",
                "timestamp": utc_iso(time()),
                "worker": name,
                "component": component,
                "job_id": job_id,
                "signature": sign_job(self.run_id, self.provider, job_id),
            }
        )
        self.workers.flush()

    def flush(self) -> None:
        """Write all queued rows to their files."""
        for file in (self.inputs, self.failures, self.tasks, self.workers, self.cache):
            file.flush()

    def close(self) -> None:
        """Flush and close all files."""
        for file in (self.inputs, self.failures, self.tasks, self.workers, self.cache):
            file.close()

    def has_work(self) -> bool:
        """Return whether any task will continue without the user."""
        counts = self.ledger.counts
        return any(counts[s] for s in TaskState if not s.is_final and s not in NEEDS_USER)

    def summary(self) -> dict[str, Any]:
        """Return the sums of the run so far; `counts` and `cached` are of inputs."""
        counts = self.ledger.count()
        return {
            "run_id": self.run_id,
            "schema_version": SCHEMA_VERSION,
            "counts": counts,
            "attempts": self.attempts,
            "retries": self.retries,
            "failures_by_class": dict(self.failures_by_class),
            "cached": counts["cached"],
        }

    def _columns(self, batch: TaskBatch, terms: PolicyTerms, now: float) -> dict[str, float]:
        """What the ledger says of a new task."""
        code = self.ledger.code
        return {
            "attempts_allowed": 1 + terms.retries,
            "function": code(batch.function),
            "task": code(batch.task),
            "component": code(batch.component),
            "batch": code(batch.name),
            "submitted_at": now,
        }

    def _cache_row(self, tracked: TrackedTask, facts: CacheFacts, now: float) -> dict[str, Any]:
        return {
            "run_id": self.run_id,
            "schema_version": SCHEMA_VERSION,
            "event_type": f"cache-{facts.event or 'problem'}",
            "timestamp": utc_iso(now),
            "task_id": self.ledger.keys[tracked.row],
            "function_name": tracked.batch.function,
            "key": facts.key,
            "bytes": facts.bytes,
            "problem": facts.problem,
        }

    def _failure_row(
        self,
        tracked: TrackedTask,
        failure: FailedAttempt,
        attempts_allowed: int,
        retry_in_s: float | None,
        is_final: bool,
        now: float,
    ) -> FailureRow:
        started_at = failure.started_at
        return FailureRow(
            run_id=self.run_id,
            failure_class=failure.failure_class,
            message=failure.message,
            timestamp=utc_iso(now),
            provider=self.provider,
            task_id=self.ledger.keys[tracked.row],
            details={**_given(pid=failure.pid, reason=tracked.reason), **failure.details},
            event_type="failure",
            schema_version=SCHEMA_VERSION,
            task_name=tracked.batch.task or tracked.batch.function,
            function_name=tracked.batch.function,
            component=tracked.batch.component,
            tag=tracked.batch.tag,
            attempt=tracked.attempts,
            attempts_allowed=attempts_allowed,
            is_final=is_final,
            will_retry=not is_final,
            retry_in_s=retry_in_s,
            category=failure.category,
            fingerprint=failure.fingerprint,
            error_module=failure.error_module,
            traceback=failure.traceback,
            worker=self.worker_name(failure.worker or tracked.worker),
            host=failure.host or self._worker_hosts.get(failure.worker, ""),
            job_id=failure.job_id or self._job_id_of(failure.worker or tracked.worker),
            job_state=failure.job_state,
            exit_code=failure.exit_code,
            memory_bytes=failure.memory_bytes,
            memory_limit_bytes=failure.memory_limit_bytes,
            started_at=utc_iso(started_at) if started_at else None,
            queued_s=tracked.queued_s(started_at),
            duration_s=failure.duration_s,
            args_preview=tracked.preview,
        )

    def _task_row(self, tracked: TrackedTask, ending: _Ending) -> TaskRow:
        columns, row = self.ledger.columns, tracked.row
        started_at = columns["started_at"][row]
        has_failed = ending.state in (TaskState.FAILED, TaskState.LEFT_OUT)
        return TaskRow(
            run_id=self.run_id,
            schema_version=SCHEMA_VERSION,
            event_type="task",
            timestamp=utc_iso(ending.at),
            task_id=self.ledger.keys[row],
            task_name=tracked.batch.task or tracked.batch.function,
            function_name=tracked.batch.function,
            component=tracked.batch.component,
            tag=tracked.batch.tag,
            batch=tracked.batch.name,
            state=ending.state.label,
            attempts=ending.attempts,
            attempts_allowed=columns["attempts_allowed"][row],
            worker=self.worker_name(ending.worker),
            host=self._worker_hosts.get(ending.worker, ""),
            pid=ending.pid,
            submitted_at=utc_iso(columns["submitted_at"][row]),
            started_at=utc_iso(started_at) if started_at else None,
            queued_s=ending.queued_s,
            duration_s=columns["duration_s"][row],
            memory_bytes=ending.memory_bytes,
            result_bytes=ending.result_bytes,
            args_preview=tracked.preview,
            failure_class=(self.ledger.strings[ending.error] or None) if has_failed else None,
            reason=ending.reason,
        )


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}
