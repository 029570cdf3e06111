"""What follows when an attempt ends otherwise than with a result.

Workers and nannies ask, `Losses` tells what went with a worker. Here it is decided, written
down, and done: the task is held until it runs again, or fails for good.
"""

from __future__ import annotations

from pathlib import Path
from random import random
from time import time
from typing import TYPE_CHECKING, Any

from distributed.protocol import pickle

from scalable_nb.cache.store import ResultStore
from scalable_nb.errors import TaskTimeoutError
from scalable_nb.errors.worker_errors import UnknownOutcomeError
from scalable_nb.faults.decision import decide
from scalable_nb.host.tasks.task import RECOMPUTED, RECOVERED, Failure, TaskRecord
from scalable_nb.protocol.call import result_key_of, slot_name
from scalable_nb.protocol.messages import ANNOTATION

if TYPE_CHECKING:
    from scalable_nb.host.tasks.tracker import TaskTracker


class Outcomes:
    """Decides about attempts that failed, expired, were lost, or may not begin.

    Parameters
    ----------
    tracker : TaskTracker
    """

    def __init__(self, tracker: TaskTracker) -> None:
        self._tracker = tracker
        self._scheduler = tracker.scheduler
        self._recorder = tracker.recorder
        self._hold = tracker.hold
        self._tickets = tracker.tickets
        self._keys_by_slot: dict[str, Any] = {}

    def enter(self, key: Any) -> None:
        """A task of ours is new."""
        if slot_name(key) != key:
            self._keys_by_slot[slot_name(key)] = key

    def forget(self, key: Any) -> None:
        """A task is gone."""
        self._keys_by_slot.pop(slot_name(key), None)

    # --- attempts that must not be repeated ----------------------------------------

    def take_ticket(self, key: Any, worker: str, run_id: int) -> dict[str, Any]:
        """An attempt asks whether it may call a function that must not be called twice.

        Answers whether the ticket is ``granted``, else why not in a ``refusal``, which is empty
        where nobody waits for the attempt any more.
        """
        record = self._running_record(key, worker, run_id)
        if record is None:
            return {"granted": False, "refusal": ""}
        if self._tickets.take(key, worker, run_id):
            return {"granted": True, "refusal": ""}
        return {
            "granted": False,
            "refusal": f"{record.label} {self._tickets.in_words(key)}, and nobody knows how far "
            "it came. The task is not idempotent, so it is not called again; `resubmit` does it "
            "when the task is named.",
        }

    def recover(self, record: TaskRecord) -> bool:
        """Let a task that was lost with its worker have its result, where that had been kept."""
        ts = self._scheduler.tasks[record.key]
        wire = (ts.annotations or {}).get(ANNOTATION) or {}
        result_key = result_key_of(ts.run_spec) if wire.get("store") else ""
        # Once: a file that is there and cannot be read would be tried for ever.
        is_new = bool(result_key) and record.reason != RECOVERED and not wire.get("recompute")
        if not is_new or not ResultStore(Path(wire["store"])).contains(result_key):
            return False
        record.reason = RECOVERED
        self.resume(record)
        return True

    # --- attempts fail -----------------------------------------------------------

    def attempt_failed(
        self,
        key: Any,
        worker: str,
        run_id: int,
        verdict: str | None,
        failure: dict[str, Any],
        exception: bytes,
    ) -> dict[str, Any]:
        """A worker asks what to do about an exception.

        Answers whether to ``retry``, and whether the attempt ``is_told`` with that. One that was
        lost or taken back meanwhile is not: what became of it is asked where it is noted.
        """
        record = self._running_record(key, worker, run_id)
        if record is None:  # cancelled or lost meanwhile: nobody waits for this attempt
            return {"retry": False, "is_told": False}
        if record.is_reported:  # asked again: the connection broke before the answer came
            return {"retry": not record.is_given_up, "is_told": True}
        if failure["failure_class"] != UnknownOutcomeError.__name__:
            self._tickets.renew(key)  # what became of the call is known
        record.exception = exception
        will_retry = self.settle(record, Failure(worker=worker, **failure), verdict=verdict)
        return {"retry": will_retry, "is_told": True}

    def attempt_expired(
        self,
        key: str,
        worker: str,
        run_id: int,
        started_at: float,
        duration_s: float,
        memory_bytes: int,
        neighbours: list[str],
    ) -> dict[str, bool]:
        """A nanny says that an attempt exceeded its limit.

        Answers whether to ``kill`` the worker, and whether the attempt ``is_settled`` with
        that. A neighbour that must not be called twice is waited for: the nanny asks again.
        """
        record = self._running_record(self._key_of(key), worker, run_id)
        if record is not None and record.is_reported:
            return {"kill": False, "is_settled": False}  # it has just ended by itself
        is_harmless = not any(map(self._is_precious, neighbours))
        if record is None:  # cancelled or settled: it only blocks its thread
            return {"kill": is_harmless, "is_settled": False}
        if is_harmless:
            # Nothing more for a worker that is about to end.
            stimulus = f"scalable-timeout-{time()}"
            self._scheduler.handle_worker_status_change("paused", worker, stimulus)
        self._time_out(record, worker, started_at, duration_s, memory_bytes)
        return {"kill": is_harmless, "is_settled": True}

    def _time_out(
        self,
        record: TaskRecord,
        worker: str,
        started_at: float,
        duration_s: float,
        memory_bytes: int,
    ) -> None:
        message = f"{record.label} ran longer than its limit of {record.terms.timeout_s:g} s"
        if record.reason == RECOMPUTED:
            message += " when it was computed again, its result having been lost with a worker"
        failure = Failure(
            failure_class="TaskTimeoutError",
            message=message,
            category="timeout",
            fingerprint=self._tracker.losses.fingerprint("TaskTimeoutError", record),
            error_module="scalable_nb.errors",
            started_at=started_at,
            duration_s=duration_s,
            worker=worker,
            memory_bytes=memory_bytes or None,
            memory_limit_bytes=self._scheduler.workers[worker].memory_limit,
        )
        if self.settle(record, failure):
            self._scheduler.transitions({record.key: "released"}, f"scalable-timeout-{time()}")
        else:
            self.fail(record, TaskTimeoutError(f"{message} (attempt {record.attempts})"))

    def _key_of(self, name: str) -> Any:
        return self._keys_by_slot.get(name, name)

    def _is_precious(self, name: str) -> bool:
        record = self._tracker.records.get(self._key_of(name))
        return record is not None and not record.terms.idempotent

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
        self._recorder.end_attempt(
            record, failure, retry_in_s=decision.retry_in_s, is_final=not decision.will_retry
        )
        if decision.will_retry:
            delay_s = decision.retry_in_s or 0.0
            is_paused = record.key in self._tracker.brakes
            self._tracker.on_retry(record, failure)
            # Where its batch was paused meanwhile, a person says when.
            self._hold.park(record.key, None if is_paused else delay_s)
            self._recorder.ledger.set(record.row, retry_at=time() + delay_s)
        else:
            self._tracker.brakes.on_failure(record, failure)
        return decision.will_retry

    def resume(self, record: TaskRecord) -> None:
        """Let a task run that was held until it was known what had become of it."""
        if record.key not in self._tracker.brakes:
            self._hold.wake(record.key)

    def fail(self, record: TaskRecord, error: Exception | bytes) -> None:
        """End a task for good, with an error of ours or one that a worker pickled."""
        self._hold.drop(record.key)
        ts = self._scheduler.tasks[record.key]
        pickled: Any = error if isinstance(error, bytes) else pickle.dumps(error)
        text = "" if isinstance(error, bytes) else repr(error)
        values: dict[str, Any] = {}
        if ts.state in ("waiting", "released"):
            # For an input that was lost with the same worker: from there Dask takes no error,
            # it looks for that of the task to blame.
            ts.exception, ts.exception_text, ts.exception_blame = pickled, text, ts
        else:
            values = {
                "exception": pickled,
                "cause": record.key,
                "exception_text": text,
                "traceback_text": "",
            }
        stimulus = f"scalable-fail-{time()}"
        recommendations = self._scheduler.transition(
            record.key, "erred", stimulus_id=stimulus, **values
        )
        self._scheduler.transitions(recommendations, stimulus)
        self._scheduler.stimulus_queue_slots_maybe_opened(stimulus_id=stimulus)

    def _running_record(self, key: Any, worker: str, run_id: int) -> TaskRecord | None:
        """The task of an attempt that is waited for; None where it was cancelled or lost.

        The same task may be on the same worker once more: only the number tells them apart.
        """
        record, ts = self._tracker.records.get(key), self._scheduler.tasks.get(key)
        if record is None or ts is None or ts.processing_on is None or ts.run_id != run_id:
            return None
        return record if ts.processing_on.address == worker else None
