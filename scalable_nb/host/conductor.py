"""The scheduler plugin that follows every task and decides about every failed attempt.

It runs in the scheduler's event loop. `transition` is on the path of every task, so it
does no more than a few assignments; all that is formatted is formatted when the journal
is written.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from random import random
from time import time
from typing import Any, Final

from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.protocol import pickle
from distributed.scheduler import Scheduler

from scalable_nb.errors import TaskTimeoutError
from scalable_nb.faults.policy import PolicyTerms, decide
from scalable_nb.host.batches import ANNOTATION, Batch
from scalable_nb.host.book import Book, Failure, TaskRecord
from scalable_nb.host.hold import Hold
from scalable_nb.host.keeper import Keeper
from scalable_nb.host.losses import Losses
from scalable_nb.telemetry.ledger import Delta
from scalable_nb.telemetry.records import TaskState

logger = logging.getLogger(__name__)

#: A reader gets a new delta at most this often.
DELTA_INTERVAL_S: Final = 0.25


class Conductor(SchedulerPlugin):
    """Ledger, retries, worker losses and the handlers that kernels and workers call.

    Parameters
    ----------
    scheduler : distributed.Scheduler
    book : Book
        Where everything is written down.
    """

    name = "scalable-conductor"

    def __init__(self, scheduler: Scheduler, book: Book) -> None:
        self.scheduler = scheduler
        self.book = book
        self.records: dict[Any, TaskRecord] = {}
        self.hold = Hold(scheduler, on_wake=self._on_wake)
        self.keeper = Keeper(scheduler)
        self.losses = Losses(self)
        self.stop_requested = asyncio.Event()
        self._batches: dict[str, Batch] = {}
        self._keys_by_text: dict[str, Any] = {}
        self._on_finish: dict[str, Callable[..., None]] = {
            "processing": self._on_processing,
            "memory": self._on_memory,
            "erred": self._on_erred,
            "released": self._on_released,
            "waiting": self._on_waiting,
            "queued": self._on_queued,
            "no-worker": self._on_no_worker,
            "forgotten": self._on_forgotten,
        }
        scheduler.stream_handlers["scalable-batch"] = self.add_batch
        scheduler.stream_handlers["scalable-reopen"] = self.reopen
        scheduler.handlers.update(
            scalable_attempt_failed=self.attempt_failed,
            scalable_attempt_expired=self.attempt_expired,
            scalable_worker_exited=self.losses.report,
            scalable_resubmit=self.resubmit,
            scalable_retry_now=self.retry_now,
            scalable_give_up=self.give_up,
            scalable_ledger=self.ledger_delta,
            scalable_flush=self.flush,
            scalable_status=self.status,
            scalable_stop=self.stop,
        )

    # --- tasks arrive ------------------------------------------------------------

    def add_batch(self, client: str, **values: Any) -> None:
        """A client is about to send a graph: what its tasks have in common."""
        batch = Batch.from_wire(**values)
        self._batches[batch.batch_id] = batch

    def update_graph(
        self,
        scheduler: Scheduler,
        *,
        keys: Collection[Any],
        annotations: dict[str, dict[Any, Any]],
        tasks: list[Any],
        **kwargs: Any,
    ) -> None:
        """Enter the tasks of a graph before any of them becomes runnable."""
        ours = annotations.get(ANNOTATION)
        if ours:
            for key, terms in ours.items():
                if key not in self.records:
                    self._open(key, terms)
        self.keeper.want(key for key in keys if key in self.records)
        again = {key: (ours or {}).get(key) for key in keys if self._is_failed(key)}
        if again:
            # A fresh submission of a call that failed before: Dask would hand out the old error.
            self._run_again(again)

    def _open(self, key: Any, annotation: dict[str, Any]) -> None:
        batch = self._batches[annotation["batch"]]
        if batch.terms is None:
            batch.terms = PolicyTerms.from_wire(annotation)
        self.records[key] = self.book.open(key, batch, batch.terms)
        if not isinstance(key, str):
            self._keys_by_text[repr(key)] = key
        if not batch.previews:
            self._batches.pop(batch.batch_id, None)

    # --- tasks move --------------------------------------------------------------

    def transition(
        self, key: Any, start: str, finish: str, *args: Any, stimulus_id: str = "", **kwargs: Any
    ) -> None:
        """Follow a task; called for every transition of every task."""
        record = self.records.get(key)
        if record is None:
            return
        self._on_finish[finish](record, start, stimulus_id, kwargs)
        if key in self.hold:
            self.hold.on_transition(key, finish)

    def _on_processing(self, record: TaskRecord, start: str, stimulus: str, kwargs: Any) -> None:
        ws = self.scheduler.tasks[record.key].processing_on
        self.book.begin_attempt(record, ws.address if ws else "")

    def _on_memory(self, record: TaskRecord, start: str, stimulus: str, kwargs: Any) -> None:
        kept = (kwargs.get("metadata") or {}).get(ANNOTATION) or {}
        if kept:
            self.book.keep(record, kept)
        started_at = duration_s = None
        for span in kwargs.get("startstops") or ():
            if span["action"] == "compute":
                started_at, duration_s = span["start"], span["stop"] - span["start"]
        self.book.finish(
            record,
            TaskState.CACHED if kept.get("event") == "hit" else TaskState.SUCCEEDED,
            started_at=started_at,
            duration_s=duration_s,
            result_bytes=kwargs.get("nbytes"),
        )

    def _on_erred(self, record: TaskRecord, start: str, stimulus: str, kwargs: Any) -> None:
        blame = self.scheduler.tasks[record.key].exception_blame
        if blame is not None and blame.key != record.key:
            self._fail_with_input(record, blame.key)
        elif not record.is_reported:
            self._report_plain_error(record, kwargs)
        self.book.finish(record, TaskState.FAILED)

    def _on_released(self, record: TaskRecord, start: str, stimulus: str, kwargs: Any) -> None:
        record.runnable_at = time()
        if start == "memory" and self.scheduler.tasks[record.key].who_wants:
            # Dask computes a lost result again; to the person that is another attempt.
            record.reason = "recomputed"
        elif start == "processing" and record.worker not in self.scheduler.workers:
            self.losses.suspect(record, is_expected=not stimulus.startswith(_UNEXPECTED))

    def _on_waiting(self, record: TaskRecord, start: str, stimulus: str, kwargs: Any) -> None:
        is_blocked = bool(self.scheduler.tasks[record.key].waiting_on)
        self._set_state(record, TaskState.WAITING if is_blocked else TaskState.QUEUED)

    def _on_queued(self, record: TaskRecord, start: str, stimulus: str, kwargs: Any) -> None:
        self._set_state(record, TaskState.QUEUED)

    def _on_no_worker(self, record: TaskRecord, start: str, stimulus: str, kwargs: Any) -> None:
        self._set_state(record, TaskState.PENDING)

    def _on_forgotten(self, record: TaskRecord, start: str, stimulus: str, kwargs: Any) -> None:
        self.hold.drop(record.key)
        del self.records[record.key]
        state = TaskState(self.book.ledger.columns["state"][record.row])
        if not state.is_final:
            self.book.finish(record, TaskState.CANCELLED)

    def _set_state(self, record: TaskRecord, state: TaskState) -> None:
        if record.key in self.hold:
            state = TaskState.RETRYING
        self.book.ledger.set_state(record.row, state)

    def _on_wake(self, key: Any) -> None:
        self.records[key].runnable_at = time()

    # --- attempts fail -----------------------------------------------------------

    def attempt_failed(
        self,
        key: Any,
        worker: str,
        verdict: str | None,
        failure: dict[str, Any],
        exception: bytes,
    ) -> dict[str, Any]:
        """A worker asks what to do about an exception; answers ``{"retry": bool}``."""
        record = self._running_record(key, worker)
        if record is None:  # cancelled or lost meanwhile: nobody waits for this attempt
            return {"retry": False}
        will_retry = self.settle(record, Failure(worker=worker, **failure), verdict=verdict)
        record.exception = exception if will_retry else b""
        return {"retry": will_retry}

    def attempt_expired(
        self, key: str, worker: str, started_at: float, duration_s: float, memory_bytes: int
    ) -> dict[str, Any]:
        """A nanny says that an attempt exceeded its limit; answers whether to kill the worker."""
        key = self._keys_by_text.get(key, key)
        record = self._running_record(key, worker)
        if record is None or record.is_reported:
            return {"kill": False}
        limit_s = record.terms.timeout_s
        message = f"{record.label} ran longer than its limit of {limit_s:g} s"
        failure = Failure(
            failure_class="TaskTimeoutError",
            message=message,
            category="timeout",
            fingerprint=self.losses.fingerprint("TaskTimeoutError", record),
            error_module="scalable_nb.errors",
            started_at=started_at,
            duration_s=duration_s,
            worker=worker,
            memory_bytes=memory_bytes or None,
        )
        if self.settle(record, failure):
            self.scheduler.transitions({key: "released"}, f"scalable-timeout-{time()}")
        else:
            self.fail(record, TaskTimeoutError(f"{message} (attempt {record.attempts})"))
        return {"kill": True}

    def settle(
        self,
        record: TaskRecord,
        failure: Failure,
        *,
        verdict: str | None = None,
        loss: str | None = None,
    ) -> bool:
        """Decide about a failed attempt, write it down, and hold the task if it runs again."""
        decision = decide(
            record.terms,
            category=failure.category,
            attempt=record.attempts - record.attempts_at_start + 1,
            retries_used=record.retries_used,
            losses_used=record.losses_used,
            verdict=verdict,
            loss=loss,
            random=random,
        )
        record.retries_used += decision.charged == "retries"
        record.losses_used += decision.charged == "worker_losses"
        self.book.end_attempt(
            record, failure, retry_in_s=decision.retry_in_s, is_final=not decision.will_retry
        )
        if decision.will_retry:
            delay_s = decision.retry_in_s or 0.0
            self.hold.park(record.key, delay_s)
            self.book.ledger.set(record.row, retry_at=time() + delay_s)
        return decision.will_retry

    def fail(self, record: TaskRecord, error: Exception | bytes) -> None:
        """End a task for good, with an error of ours or one that a worker pickled."""
        self.hold.drop(record.key)
        text = "" if isinstance(error, bytes) else repr(error)
        recommendations = self.scheduler.transition(
            record.key,
            "erred",
            stimulus_id=f"scalable-fail-{time()}",
            exception=error if isinstance(error, bytes) else pickle.dumps(error),
            cause=record.key,
            exception_text=text,
            traceback_text="",
        )
        self.scheduler.transitions(recommendations, f"scalable-fail-{time()}")
        self.scheduler.stimulus_queue_slots_maybe_opened(stimulus_id=f"scalable-fail-{time()}")

    def _running_record(self, key: Any, worker: str) -> TaskRecord | None:
        record, ts = self.records.get(key), self.scheduler.tasks.get(key)
        if record is None or ts is None or ts.processing_on is None:
            return None
        return record if ts.processing_on.address == worker else None

    def _report_plain_error(self, record: TaskRecord, kwargs: dict[str, Any]) -> None:
        # The attempt could not speak for itself, e.g. its call could not be unpickled.
        text = kwargs.get("exception_text") or ""
        failure_class = text.partition("(")[0] or "Exception"
        self.book.end_attempt(
            record,
            Failure(
                failure_class=failure_class,
                message=text,
                category="unknown",
                fingerprint=self.losses.fingerprint(failure_class, record),
                traceback=kwargs.get("traceback_text") or "",
                worker=kwargs.get("worker") or "",
            ),
            retry_in_s=None,
            is_final=True,
        )

    def _fail_with_input(self, record: TaskRecord, blamed: Any) -> None:
        record.reason = f"its input {blamed} failed"
        cause = self.records.get(blamed)
        if cause is not None:
            error = self.book.ledger.columns["error"][cause.row]
            self.book.ledger.set(record.row, error=error)

    # --- a person asks -----------------------------------------------------------

    def _is_failed(self, key: Any) -> bool:
        ts = self.scheduler.tasks.get(key)
        return key in self.records and ts is not None and ts.state == "erred"

    def reopen(self, client: str, keys: Iterable[Any], terms: dict[str, Any]) -> None:
        """A client submitted calls again whose failed futures it still holds."""
        self._run_again({key: terms for key in keys if self._is_failed(key)})

    def resubmit(
        self, keys: Iterable[Any], changes: dict[str, Any], named: Collection[Any], dry_run: bool
    ) -> dict[str, list[Any]]:
        """Run failed tasks again under their own keys, with changed terms.

        Tasks that are not idempotent are left out unless they are ``named``. Answers the keys
        ``chosen`` and ``left_out``; ``dry_run`` does no more than that.
        """
        failed = [key for key in keys if self._is_failed(key)]
        chosen = [k for k in failed if self.records[k].terms.idempotent or k in named]
        if not dry_run:
            self._run_again(
                {key: {**self.records[key].terms.to_wire(), **changes} for key in chosen}
            )
        return {"chosen": chosen, "left_out": [key for key in failed if key not in set(chosen)]}

    def retry_now(self, keys: Iterable[Any]) -> list[Any]:
        """End the waiting of tasks between two attempts; returns their keys."""
        waiting = [key for key in keys if self._is_waiting(key)]
        for key in waiting:
            self.hold.wake(key)
        return waiting

    def give_up(self, keys: Iterable[Any]) -> list[Any]:
        """Let tasks between two attempts fail with their last error; returns their keys."""
        waiting = [key for key in keys if self._is_waiting(key)]
        for key in waiting:
            record = self.records[key]
            record.reason = "given up by a person"
            error = record.exception or TaskTimeoutError(f"{record.label} was given up")
            self.fail(record, error)
        return waiting

    def _is_waiting(self, key: Any) -> bool:
        ts = self.scheduler.tasks.get(key)
        return self.hold.is_timed(key) and ts is not None and ts.state == "no-worker"

    def _run_again(self, wires: dict[Any, dict[str, Any] | None]) -> None:
        for key in self._with_failed_inputs(wires):
            record, ts = self.records[key], self.scheduler.tasks[key]
            wire = wires.get(key)
            if wire is not None:
                annotation = dict(ts.annotations or {}).get(ANNOTATION, {})
                kept = {
                    name: annotation[name] for name in ("store", "recompute") if name in annotation
                }
                ts.annotations = {**(ts.annotations or {}), ANNOTATION: {**kept, **wire}}
            self.book.reopen(record, record.terms if wire is None else PolicyTerms.from_wire(wire))
            ts.suspicious = 0
        if wires:
            self.scheduler.stimulus_retry(list(wires))

    def _with_failed_inputs(self, keys: Iterable[Any]) -> list[Any]:
        # Dask retries the failed inputs of a task with it.
        found: dict[Any, None] = {}
        stack = list(keys)
        while stack:
            key = stack.pop()
            if key not in found and self._is_failed(key):
                found[key] = None
                stack += [dts.key for dts in self.scheduler.tasks[key].dependencies]
        return list(found)

    async def ledger_delta(self, ledger_id: str, since: int, wait_s: float) -> Delta | None:
        """What changed since a sequence number; waits for a change, None when there is none."""
        ledger = self.book.ledger
        if ledger_id != ledger.ledger_id:
            since = 0
        deadline = time() + wait_s
        while not ledger.has_changed(since):
            if time() >= deadline:
                return None
            await asyncio.sleep(DELTA_INTERVAL_S)
        return ledger.delta(since)

    async def flush(self) -> None:
        """Bring the journal on disk up to date."""
        self.book.flush()

    def status(self) -> dict[str, Any]:
        """Workers and counts, as plain values."""
        return {
            "counts": self.book.ledger.count(),
            "workers": [
                {
                    "name": self.book.worker_name(ws.address),
                    "address": ws.address,
                    "state": "busy" if ws.processing else "idle",
                    "threads": ws.nthreads,
                    "memory_bytes": ws.metrics.get("memory", 0),
                    "memory_limit_bytes": ws.memory_limit,
                    "host": ws.host,
                }
                for ws in self.scheduler.workers.values()
            ],
        }

    def stop(self) -> None:
        """End the host."""
        self.stop_requested.set()

    # --- clients and workers come and go -----------------------------------------

    def has_clients(self) -> bool:
        """Whether a kernel is connected."""
        return bool(self.scheduler.client_comms)

    def has_work(self) -> bool:
        """Whether any task has yet to reach a final state."""
        counts = self.book.ledger.counts
        return any(counts[state] for state in TaskState if not state.is_final)

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """A client vanished or closed: what it wanted stays wanted by the host."""
        logger.info("client %s left; its tasks go on", client)

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Write down a worker that came."""
        ws = scheduler.workers[worker]
        self.book.worker_came(worker, f"worker-{ws.name}", ws.host, ws.nthreads)

    def remove_worker(self, scheduler: Scheduler, worker: str, **kwargs: Any) -> None:
        """Write down a worker that went, and settle what it was doing."""
        self.book.worker_left(worker)
        self.losses.on_removed(worker)


#: Stimuli by which Dask removes a worker that did not say goodbye (distributed 2026.8.0).
_UNEXPECTED: Final = ("handle-worker-cleanup", "check-worker-ttl", "worker-ttl", "send-all")
