"""The scheduler plugin that follows every task and decides about every failed attempt.

It runs in the scheduler's event loop. `transition` is on the path of every task, so it
does no more than a few assignments; all that is formatted is formatted when the journal
is written.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from random import random
from time import time
from typing import Any, Final

from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.protocol import pickle
from distributed.scheduler import Scheduler

from scalable_nb.cache.store import ResultStore
from scalable_nb.calls import result_key_of
from scalable_nb.errors import TaskTimeoutError
from scalable_nb.errors.workers import UnknownOutcomeError
from scalable_nb.faults.policy import PolicyTerms, decide
from scalable_nb.host.batches import ANNOTATION, Batch
from scalable_nb.host.book import Book
from scalable_nb.host.brakes import Brakes
from scalable_nb.host.hold import Hold
from scalable_nb.host.keeper import Keeper
from scalable_nb.host.losses import Losses
from scalable_nb.host.memory import PEAK_METRIC
from scalable_nb.host.plain import PlainTasks, told_by_dask
from scalable_nb.host.record import Failure, TaskRecord
from scalable_nb.host.requests import Requests
from scalable_nb.host.routes import Routes
from scalable_nb.host.seats import Seats
from scalable_nb.host.slots import slot_name
from scalable_nb.host.tickets import Tickets
from scalable_nb.telemetry.records import TaskState

logger = logging.getLogger(__name__)

#: Why a task that had succeeded has a further attempt: its result was lost with a worker.
RECOMPUTED: Final = "recomputed"

#: Why a task succeeded without a word from its worker: its result was found on disk.
RECOVERED: Final = "kept before its worker was lost"

_MAX_PENDING_BATCHES: Final = 10_000

#: Where kernels listen for notices.
NOTICE_TOPIC: Final = "scalable-notice"


class Conductor(SchedulerPlugin):
    """Ledger, retries, worker losses and the handlers that kernels and workers call.

    Parameters
    ----------
    scheduler : distributed.Scheduler
    book : Book
        Where everything is written down.
    brake_limit : int
        Equal failures in a row that pause a batch; 0: never.
    kinds : collection of str
        Components with workers of their own; see `Routes`.
    """

    name = "scalable-conductor"

    def __init__(
        self,
        scheduler: Scheduler,
        book: Book,
        *,
        brake_limit: int = 0,
        kinds: Collection[str] = (),
    ) -> None:
        self.scheduler = scheduler
        self.book = book
        self.records: dict[Any, TaskRecord] = {}
        self.hold = Hold(scheduler, on_wake=self._on_wake)
        self.keeper = Keeper(scheduler)
        self.losses = Losses(self)
        self.seats = Seats()
        self.tickets = Tickets()
        self.brakes = Brakes(self, brake_limit)
        self.plain = PlainTasks(self)
        self.routes = Routes(self, kinds)
        #: Called with a failed attempt whose task runs again.
        self.on_retry: Callable[[TaskRecord, Failure], None] = lambda record, failure: None
        self.notices: list[str] = []
        #: What is known of the batch jobs of the workers; none on a target without.
        self.jobs: Callable[[], list[dict[str, Any]]] = list
        #: Called with a batch and the time limit of its tasks before any of them can run.
        self.on_batch: Callable[[Batch, float | None], None] = lambda batch, limit_s: None
        #: The batch job that this host is; nothing where it is none.
        self.host_job: Callable[[], dict[str, Any]] = dict
        #: Client -> how often it said that kept results answered calls.
        self.answered: Counter[str] = Counter()
        #: Tasks whose result is on disk.
        self.kept_keys: set[Any] = set()
        self.stop_requested = asyncio.Event()
        self._told_of_store: set[str] = set()
        self._batches: dict[str, Batch] = {}
        self._told_lost: set[str] = set()
        self._keys_by_slot: dict[str, Any] = {}
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
        scheduler.stream_handlers["scalable-answered"] = self.add_answered
        scheduler.handlers.update(
            scalable_take_ticket=self.take_ticket,
            scalable_attempt_failed=self.attempt_failed,
            scalable_attempt_expired=self.attempt_expired,
            scalable_worker_exited=self.losses.report,
        )
        self.requests = Requests(self)

    # --- tasks arrive ------------------------------------------------------------

    def add_batch(self, client: str, **values: Any) -> None:
        """A client is about to send a graph: what its tasks have in common."""
        batch = Batch.from_wire(**values)
        self._batches[batch.batch_id] = batch
        if len(self._batches) > _MAX_PENDING_BATCHES:
            # Batches of calls that another client had submitted before are never entered.
            del self._batches[next(iter(self._batches))]

    def add_answered(self, client: str, result_keys: list[str], **values: Any) -> None:
        """A client answered calls with kept results."""
        self.book.enter_answered(Batch.from_wire(**values), result_keys)
        self.answered[client] += 1

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
            self._open_all(ours)
            self.routes.restrict(ours)
        self.plain.enter(tasks)
        calls = [key for key in keys if key in self.records and not self.records[key].is_plain]
        self.keeper.want(calls)
        again = {key: (ours or {}).get(key) for key in calls if self.requests.is_failed(key)}
        if again:
            # A fresh submission of a call that failed before: Dask would hand out the old error.
            self.requests.run_again(again)

    def _open_all(self, annotations: dict[Any, dict[str, Any]]) -> None:
        # In the order of the client's call; Dask's own is that of a set.
        for batch_id in dict.fromkeys(terms.get("batch", "") for terms in annotations.values()):
            batch = self._batches.pop(batch_id, None)
            if batch is None:
                continue
            for key in list(batch.previews):
                if key in annotations and key not in self.records:
                    terms = batch.terms = batch.terms or PolicyTerms.from_wire(annotations[key])
                    self.records[key] = self.book.open(key, batch, terms)
                    if slot_name(key) != key:
                        self._keys_by_slot[slot_name(key)] = key
            if batch.terms is not None:
                self.on_batch(batch, batch.terms.timeout_s)

    # --- tasks move --------------------------------------------------------------

    def transition(
        self, key: Any, start: str, finish: str, *args: Any, stimulus_id: str = "", **kwargs: Any
    ) -> None:
        """Follow a task; called for every transition of every task."""
        record = self.records.get(key)
        if record is None:
            if finish != "erred":
                return
            record = self.plain.enter_failed(key)
        if start == "processing":
            self.leave_seat(record)
        self._on_finish[finish](record, start, stimulus_id, kwargs)
        if key in self.hold:
            self.hold.on_transition(key, finish)

    def _on_processing(self, record: TaskRecord, start: str, stimulus: str, kwargs: Any) -> None:
        ts = self.scheduler.tasks[record.key]
        if not record.is_plain:
            # Worker losses have budgets of our own: Dask is not to count them as well.
            ts.suspicious = 0
        ws = ts.processing_on
        assert ws is not None  # that is what processing means
        self.book.assign(record, ws.address)
        if self.seats.take(ws.address, ws.nthreads, record.key):
            self.book.begin_attempt(record)

    def leave_seat(self, record: TaskRecord) -> None:
        """A task has no thread any more; the next in line has it."""
        following = self.records.get(self.seats.leave(record.worker, record.key))
        if following is not None:
            self.book.begin_attempt(following)

    def _on_memory(self, record: TaskRecord, start: str, stimulus: str, kwargs: Any) -> None:
        kept = (kwargs.get("metadata") or {}).get(ANNOTATION) or {}
        if kept:
            self.book.keep(record, kept)
            if kept.get("event"):
                self.kept_keys.add(record.key)
            if kept.get("problem"):
                self._tell_of_store(record, kept["problem"])
        started_at = duration_s = None
        for span in kwargs.get("startstops") or ():
            if span["action"] == "compute":
                started_at, duration_s = span["start"], span["stop"] - span["start"]
        self.brakes.on_success(record)
        is_hit = kept.get("event") == "hit" and record.reason != RECOVERED
        if is_hit and record.reason == RECOMPUTED:
            # Dask asked again for what this very run had computed and kept.
            self.book.ledger.set_state(record.row, TaskState.SUCCEEDED)
            return
        if is_hit and record.batch.is_known:
            # Its client had answered with the result before another task needed it.
            self.book.ledger.set_state(record.row, TaskState.CACHED)
            return
        ws = self.scheduler.workers.get(record.worker)
        self.book.finish(
            record,
            TaskState.CACHED if is_hit else TaskState.SUCCEEDED,
            started_at=started_at,
            duration_s=duration_s,
            pid=ws.pid if ws is not None else None,
            memory_bytes=ws.metrics.get(PEAK_METRIC) if ws is not None else None,
            result_bytes=kwargs.get("nbytes"),
        )

    def _tell_of_store(self, record: TaskRecord, problem: str) -> None:
        # Once per function: whatever ails the store, it ails it for the next task too.
        if record.batch.function not in self._told_of_store:
            self._told_of_store.add(record.batch.function)
            self.notify(f"{record.label} is done, but: {problem}. Others are in cache.jsonl.")

    def _on_erred(self, record: TaskRecord, start: str, stimulus: str, kwargs: Any) -> None:
        self.hold.drop(record.key)
        self.brakes.forget(record.key)
        blame = self.scheduler.tasks[record.key].exception_blame
        if blame is not None and blame.key != record.key:
            self._fail_with_input(record, blame.key)
        elif not record.is_reported:
            self._report_plain_error(record, kwargs)
        record.exception = b""
        if record.reason == RECOMPUTED:
            self._tell_lost_success(record)
        self.book.finish(record, TaskState.FAILED)

    def _tell_lost_success(self, record: TaskRecord) -> None:
        if record.batch.batch_id not in self._told_lost:  # once; the others are in the journal
            self._told_lost.add(record.batch.batch_id)
            self.notify(
                f"{record.label} had succeeded, its result was lost with its worker, and computing "
                "it again failed. `cache: true` in its `tasks:` entry keeps results on disk."
            )

    def _on_released(self, record: TaskRecord, start: str, stimulus: str, kwargs: Any) -> None:
        record.runnable_at = time()
        if start == "memory" and self.scheduler.tasks[record.key].who_wants:
            # Dask computes a lost result again; to the person that is another attempt.
            record.reason = RECOMPUTED
        elif record.is_plain:
            self.plain.on_released(record, start)
        elif start == "processing" and record.worker not in self.scheduler.workers:
            self.losses.suspect(record, is_expected=not stimulus.startswith(_UNEXPECTED))
        self.routes.restrict((record.key,))
        self._end_unneeded(record)

    def _end_unneeded(self, record: TaskRecord) -> None:
        """A task that nobody needs may stay, for what depended on it and failed."""
        ts = self.scheduler.tasks[record.key]
        if ts.who_wants or ts.waiters or record.key in self.hold or record.is_plain:
            return
        if not TaskState(self.book.ledger.columns["state"][record.row]).is_final:
            self.book.finish(record, TaskState.CANCELLED)

    def _on_waiting(self, record: TaskRecord, start: str, stimulus: str, kwargs: Any) -> None:
        is_blocked = bool(self.scheduler.tasks[record.key].waiting_on)
        self._set_state(record, TaskState.WAITING if is_blocked else TaskState.QUEUED)

    def _on_queued(self, record: TaskRecord, start: str, stimulus: str, kwargs: Any) -> None:
        self._set_state(record, TaskState.QUEUED)

    def _on_no_worker(self, record: TaskRecord, start: str, stimulus: str, kwargs: Any) -> None:
        self._set_state(record, TaskState.PENDING)

    def _on_forgotten(self, record: TaskRecord, start: str, stimulus: str, kwargs: Any) -> None:
        self.hold.drop(record.key)
        self.brakes.forget(record.key)
        self._keys_by_slot.pop(slot_name(record.key), None)
        self.routes.forget(record.key)
        del self.records[record.key]
        self.kept_keys.discard(record.key)
        state = TaskState(self.book.ledger.columns["state"][record.row])
        if not state.is_final:
            self.book.finish(record, TaskState.CANCELLED)

    def _set_state(self, record: TaskRecord, state: TaskState) -> None:
        if record.key in self.hold:
            state = TaskState.PAUSED if record.key in self.brakes else TaskState.RETRYING
        self.book.ledger.set_state(record.row, state)

    def _on_wake(self, key: Any) -> None:
        record = self.records[key]
        record.runnable_at = time()
        self.routes.restrict((key,))
        if self.scheduler.tasks[key].state == "waiting":
            # For an input that was lost with the same worker: it stays where it is.
            self._on_waiting(record, "waiting", "", {})
        elif self.scheduler.tasks[key].state == "released":
            self._end_unneeded(record)

    # --- attempts that must not be repeated ----------------------------------------

    def take_ticket(self, key: Any, worker: str, run_id: int) -> dict[str, Any]:
        """An attempt asks whether it may call a function that must not be called twice.

        Answers whether the ticket is ``granted``, else why not in a ``refusal``, which is empty
        where nobody waits for the attempt any more.
        """
        record = self._running_record(key, worker, run_id)
        if record is None:
            return {"granted": False, "refusal": ""}
        if self.tickets.take(key, worker, run_id):
            return {"granted": True, "refusal": ""}
        return {
            "granted": False,
            "refusal": f"{record.label} {self.tickets.in_words(key)}, and nobody knows how far it "
            "came. The task is not idempotent, so it is not called again; `resubmit` does it "
            "when the task is named.",
        }

    def recover(self, record: TaskRecord) -> bool:
        """Let a task that was lost with its worker have its result, where that had been kept."""
        ts = self.scheduler.tasks[record.key]
        wire = (ts.annotations or {}).get(ANNOTATION) or {}
        result_key = result_key_of(ts.run_spec) if wire.get("store") else ""
        # Once: a file that is there and cannot be read would be tried for ever.
        is_new = bool(result_key) and record.reason != RECOVERED and not wire.get("recompute")
        if not is_new or not ResultStore(Path(wire["store"])).contains(result_key):
            return False
        record.reason = RECOVERED
        self.hold.wake(record.key)
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
        """A worker asks what to do about an exception; answers ``{"retry": bool}``."""
        record = self._running_record(key, worker, run_id)
        if record is None:  # cancelled or lost meanwhile: nobody waits for this attempt
            return {"retry": False}
        if record.is_reported:  # asked again: the connection broke before the answer came
            return {"retry": not record.is_given_up}
        if failure["failure_class"] != UnknownOutcomeError.__name__:
            self.tickets.renew(key)  # what became of the call is known
        record.exception = exception
        return {"retry": self.settle(record, Failure(worker=worker, **failure), verdict=verdict)}

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
            self.scheduler.handle_worker_status_change("paused", worker, stimulus)
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
            fingerprint=self.losses.fingerprint("TaskTimeoutError", record),
            error_module="scalable_nb.errors",
            started_at=started_at,
            duration_s=duration_s,
            worker=worker,
            memory_bytes=memory_bytes or None,
            memory_limit_bytes=self.scheduler.workers[worker].memory_limit,
        )
        if self.settle(record, failure):
            self.scheduler.transitions({record.key: "released"}, f"scalable-timeout-{time()}")
        else:
            self.fail(record, TaskTimeoutError(f"{message} (attempt {record.attempts})"))

    def _key_of(self, name: str) -> Any:
        return self._keys_by_slot.get(name, name)

    def _is_precious(self, name: str) -> bool:
        record = self.records.get(self._key_of(name))
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
        self.book.end_attempt(
            record, failure, retry_in_s=decision.retry_in_s, is_final=not decision.will_retry
        )
        if decision.will_retry:
            delay_s = decision.retry_in_s or 0.0
            self.on_retry(record, failure)
            self.hold.park(record.key, delay_s)
            self.book.ledger.set(record.row, retry_at=time() + delay_s)
        else:
            self.brakes.on_failure(record, failure)
        return decision.will_retry

    def fail(self, record: TaskRecord, error: Exception | bytes) -> None:
        """End a task for good, with an error of ours or one that a worker pickled."""
        self.hold.drop(record.key)
        ts = self.scheduler.tasks[record.key]
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
        recommendations = self.scheduler.transition(
            record.key, "erred", stimulus_id=stimulus, **values
        )
        self.scheduler.transitions(recommendations, stimulus)
        self.scheduler.stimulus_queue_slots_maybe_opened(stimulus_id=stimulus)

    def _running_record(self, key: Any, worker: str, run_id: int) -> TaskRecord | None:
        """The task of an attempt that is waited for; None where it was cancelled or lost.

        The same task may be on the same worker once more: only the number tells them apart.
        """
        record, ts = self.records.get(key), self.scheduler.tasks.get(key)
        if record is None or ts is None or ts.processing_on is None or ts.run_id != run_id:
            return None
        return record if ts.processing_on.address == worker else None

    def _report_plain_error(self, record: TaskRecord, kwargs: dict[str, Any]) -> None:
        # The attempt could not speak for itself: it is not ours, or could not be unpickled.
        self.book.end_attempt(record, told_by_dask(kwargs), retry_in_s=None, is_final=True)

    def _fail_with_input(self, record: TaskRecord, blamed: Any) -> None:
        record.reason = f"its input {blamed} failed"
        cause = self.records.get(blamed)
        if cause is not None:
            error = self.book.ledger.columns["error"][cause.row]
            self.book.ledger.set(record.row, error=error)

    # --- the session -----------------------------------------------------------------

    def stop(self) -> None:
        """End the host."""
        self.stop_requested.set()

    def notify(self, notice: str) -> None:
        """Tell every kernel something a person should know."""
        logger.warning(notice)
        self.notices.append(notice)
        self.scheduler.log_event(NOTICE_TOPIC, notice)

    def release_everything(self) -> None:
        """Let go of all results, so that closing workers do not compute for each other."""
        for client, cs in list(self.scheduler.clients.items()):
            keys = [ts.key for ts in cs.wants_what]
            self.scheduler.client_releases_keys(keys=keys, client=client)

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
        self.book.worker_came(worker, str(ws.name), ws.host, ws.nthreads)
        self.losses.on_added(worker, ws.nanny)

    def remove_worker(self, scheduler: Scheduler, worker: str, **kwargs: Any) -> None:
        """Write down a worker that went, and settle what it was doing."""
        self.seats.close(worker)
        self.book.worker_left(worker)
        self.losses.on_removed(worker)

    def log_event(self, topic: str, msg: Any) -> None:
        """Follow tasks that change their worker without a transition.

        Work stealing says so. What it does in the very moment in which a worker is lost is
        learned from the words that tell of the loss, just before the tasks are released.
        """
        if topic == "stealing" and msg[0] == "confirm":
            self._on_stolen(self.records.get(msg[1]), thief=msg[4])
        elif topic == "all" and isinstance(msg, dict) and msg.get("action") == "remove-worker":
            for key in msg["processing-tasks"]:
                record = self.records.get(key)
                if record is not None and record.worker != msg["worker"]:
                    self.leave_seat(record)
                    record.worker = msg["worker"]

    def _on_stolen(self, record: TaskRecord | None, thief: str) -> None:
        ws = self.scheduler.workers.get(thief)
        if record is None or ws is None:
            return
        self.leave_seat(record)
        self.book.assign(record, thief)
        if self.seats.take(thief, ws.nthreads, record.key):
            self.book.begin_attempt(record)


#: Stimuli by which Dask removes a worker that did not say goodbye (distributed 2026.8.0).
_UNEXPECTED: Final = ("handle-worker-cleanup", "check-worker-ttl", "worker-ttl", "send-all")
