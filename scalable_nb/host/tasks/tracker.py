"""The scheduler plugin that follows every task and tells the others what concerns them.

It runs in the scheduler's event loop. `transition` is on the path of every task, so it
does no more than a few assignments; all that is formatted is formatted when the journal
is written.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection
from time import time
from typing import Any, Final

from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.scheduler import Scheduler

from scalable_nb.faults.decision import PolicyTerms
from scalable_nb.host.client_requests import ClientRequests
from scalable_nb.host.tasks.at_most_once import AtMostOnceGuard
from scalable_nb.host.tasks.attempt_failures import AttemptFailures
from scalable_nb.host.tasks.batch_breakers import BatchBreakers
from scalable_nb.host.tasks.client_leases import ClientLeases
from scalable_nb.host.tasks.executing_tasks import ExecutingTasks
from scalable_nb.host.tasks.native_tasks import NativeTasks, attempt_from_dask
from scalable_nb.host.tasks.parked_tasks import ParkedTasks
from scalable_nb.host.tasks.placement import TaskPlacement
from scalable_nb.host.tasks.revocations import Revocations
from scalable_nb.host.tasks.run_recorder import RunRecorder
from scalable_nb.host.tasks.task import RECOMPUTED, RECOVERED, FailedAttempt, TrackedTask
from scalable_nb.host.tasks.worker_losses import WorkerLosses
from scalable_nb.protocol.messages import ANNOTATION, Batch
from scalable_nb.protocol.operations import NOTICE_TOPIC, PEAK_METRIC
from scalable_nb.telemetry.rows import TaskState

logger = logging.getLogger(__name__)

_MAX_PENDING_BATCHES: Final = 10_000


class TaskTracker(SchedulerPlugin):
    """Ledger, retries, worker losses and the handlers that kernels and workers call.

    Parameters
    ----------
    scheduler : distributed.Scheduler
    recorder : RunRecorder
        Where everything is written down.
    breaker_limit : int
        Equal failures in a row that pause a batch; 0: never.
    kinds : collection of str
        Components with workers of their own; see `TaskPlacement`.
    """

    name = "scalable-task-tracker"

    def __init__(
        self,
        scheduler: Scheduler,
        recorder: RunRecorder,
        *,
        breaker_limit: int = 0,
        kinds: Collection[str] = (),
    ) -> None:
        self.scheduler = scheduler
        self.recorder = recorder
        self.records: dict[Any, TrackedTask] = {}
        self.parked = ParkedTasks(scheduler, on_unpark=self._on_unpark)
        self.leases = ClientLeases(scheduler)
        self.executing = ExecutingTasks()
        self.at_most_once = AtMostOnceGuard()
        self.failures = AttemptFailures(self)
        self.losses = WorkerLosses(self)
        self.revocations = Revocations(self)
        self.breakers = BatchBreakers(self, breaker_limit)
        self.native = NativeTasks(self)
        self.placement = TaskPlacement(self, kinds)
        #: Called with a failed attempt whose task runs again.
        self.on_retry: Callable[[TrackedTask, FailedAttempt], None] = lambda tracked, failure: None
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
        self.stored_keys: set[Any] = set()
        self.stop_requested = asyncio.Event()
        self._told_of_store: set[str] = set()
        self._batches: dict[str, Batch] = {}
        self._told_lost: set[str] = set()
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
            scalable_take_ticket=self.failures.acquire_permit,
            scalable_attempt_failed=self.failures.attempt_failed,
            scalable_attempt_expired=self.failures.attempt_expired,
            scalable_worker_exited=self.losses.report,
        )
        self.requests = ClientRequests(self)

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
        self.recorder.enter_answered(Batch.from_wire(**values), result_keys)
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
            self.placement.restrict(ours)
        self.native.enter(tasks)
        calls = [key for key in keys if key in self.records and not self.records[key].is_native]
        self.leases.acquire(calls)
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
                    self.records[key] = self.recorder.open(key, batch, terms)
                    self.failures.enter(key)
            if batch.terms is not None:
                self.on_batch(batch, batch.terms.timeout_s)

    # --- tasks move --------------------------------------------------------------

    def transition(
        self, key: Any, start: str, finish: str, *args: Any, stimulus_id: str = "", **kwargs: Any
    ) -> None:
        """Follow a task; called for every transition of every task."""
        tracked = self.records.get(key)
        if tracked is None:
            if finish != "erred":
                return
            tracked = self.native.enter_failed(key)
        if start == "processing":
            self.release_thread(tracked)
        self._on_finish[finish](tracked, start, stimulus_id, kwargs)
        if key in self.parked:
            self.parked.on_transition(key, finish)

    def _on_processing(self, tracked: TrackedTask, start: str, stimulus: str, kwargs: Any) -> None:
        ts = self.scheduler.tasks[tracked.key]
        if not tracked.is_native:
            # Worker losses have budgets of our own: Dask is not to count them as well.
            ts.suspicious = 0
        ws = ts.processing_on
        assert ws is not None  # that is what processing means
        self.recorder.assign(tracked, ws.address)
        if self.executing.assign(ws.address, ws.nthreads, tracked.key):
            self.recorder.begin_attempt(tracked)

    def release_thread(self, tracked: TrackedTask) -> None:
        """A task has no thread any more; the next in line has it."""
        following = self.records.get(self.executing.release(tracked.worker, tracked.key))
        if following is not None:
            self.recorder.begin_attempt(following)

    def _on_memory(self, tracked: TrackedTask, start: str, stimulus: str, kwargs: Any) -> None:
        cache_facts = (kwargs.get("metadata") or {}).get(ANNOTATION) or {}
        if cache_facts:
            self.recorder.record_cache(tracked, cache_facts)
            if cache_facts.get("event"):
                self.stored_keys.add(tracked.key)
            if cache_facts.get("problem"):
                self._report_store_problem(tracked, cache_facts["problem"])
        started_at = duration_s = None
        for span in kwargs.get("startstops") or ():
            if span["action"] == "compute":
                started_at, duration_s = span["start"], span["stop"] - span["start"]
        self.breakers.on_success(tracked)
        is_hit = cache_facts.get("event") == "hit" and tracked.reason != RECOVERED
        is_found = started_at is None or started_at <= tracked.succeeded_at
        if tracked.reason == RECOMPUTED and (is_hit or is_found):
            # Dask asked again for what this very run had computed and kept, or for what the
            # worker had just fetched from the one that was lost: the function was not called.
            self.recorder.find_again(tracked)
            return
        if is_hit and tracked.batch.is_known:
            # Its client had answered with the result before another task needed it.
            self.recorder.ledger.set_state(tracked.row, TaskState.CACHED)
            return
        ws = self.scheduler.workers.get(tracked.worker)
        self.recorder.finish(
            tracked,
            TaskState.CACHED if is_hit else TaskState.SUCCEEDED,
            started_at=started_at,
            duration_s=duration_s,
            pid=ws.pid if ws is not None else None,
            memory_bytes=ws.metrics.get(PEAK_METRIC) if ws is not None else None,
            result_bytes=kwargs.get("nbytes"),
        )

    def _report_store_problem(self, tracked: TrackedTask, problem: str) -> None:
        # Once per function: whatever ails the store, it ails it for the next task too.
        if tracked.batch.function not in self._told_of_store:
            self._told_of_store.add(tracked.batch.function)
            self.notify(f"{tracked.label} is done, but: {problem}. Others are in cache.jsonl.")

    def _on_erred(self, tracked: TrackedTask, start: str, stimulus: str, kwargs: Any) -> None:
        self.parked.drop(tracked.key)
        self.breakers.forget(tracked.key)
        blame = self.scheduler.tasks[tracked.key].exception_blame
        if blame is not None and blame.key != tracked.key:
            self._fail_with_input(tracked, blame.key)
        elif not tracked.is_reported:
            self._report_native_error(tracked, kwargs)
        tracked.exception = b""
        if tracked.reason == RECOMPUTED:
            self._tell_lost_success(tracked)
        self.recorder.finish(tracked, TaskState.FAILED)

    def _tell_lost_success(self, tracked: TrackedTask) -> None:
        if tracked.batch.batch_id not in self._told_lost:  # once; the others are in the journal
            self._told_lost.add(tracked.batch.batch_id)
            self.notify(
                f"{tracked.label} had succeeded, its result was lost with its worker, "
                "and computing it again failed. `cache: true` in its `tasks:` entry keeps results "
                "on disk."
            )

    def _on_released(self, tracked: TrackedTask, start: str, stimulus: str, kwargs: Any) -> None:
        tracked.runnable_at = time()
        ts = self.scheduler.tasks[tracked.key]
        if start == "memory" and (ts.who_wants or ts.waiters):
            # Dask computes a lost result again; to the person that is another attempt.
            tracked.reason = RECOMPUTED
            tracked.succeeded_at = self.recorder.ledger.columns["started_at"][tracked.row]
        elif tracked.is_native:
            self.native.on_released(tracked, start)
        elif start == "processing":
            self._on_taken_back(tracked)
        self.placement.restrict((tracked.key,))
        self._end_unneeded(tracked)

    def _on_taken_back(self, tracked: TrackedTask) -> None:
        ts = self.scheduler.tasks[tracked.key]
        if tracked.worker not in self.scheduler.workers:
            self.losses.suspect(tracked)
        elif not tracked.is_reported and (ts.who_wants or ts.waiters):
            self.revocations.ask(tracked)

    def _end_unneeded(self, tracked: TrackedTask) -> None:
        """A task that nobody needs may stay, for what depended on it and failed."""
        ts = self.scheduler.tasks[tracked.key]
        if ts.who_wants or ts.waiters or tracked.key in self.parked or tracked.is_native:
            return
        if not TaskState(self.recorder.ledger.columns["state"][tracked.row]).is_final:
            self.recorder.finish(tracked, TaskState.CANCELLED)

    def _on_waiting(self, tracked: TrackedTask, start: str, stimulus: str, kwargs: Any) -> None:
        is_blocked = bool(self.scheduler.tasks[tracked.key].waiting_on)
        self._set_state(tracked, TaskState.WAITING if is_blocked else TaskState.QUEUED)

    def _on_queued(self, tracked: TrackedTask, start: str, stimulus: str, kwargs: Any) -> None:
        self._set_state(tracked, TaskState.QUEUED)

    def _on_no_worker(self, tracked: TrackedTask, start: str, stimulus: str, kwargs: Any) -> None:
        self._set_state(tracked, TaskState.PENDING)

    def _on_forgotten(self, tracked: TrackedTask, start: str, stimulus: str, kwargs: Any) -> None:
        self.parked.drop(tracked.key)
        self.breakers.forget(tracked.key)
        self.failures.forget(tracked.key)
        self.placement.forget(tracked.key)
        del self.records[tracked.key]
        self.stored_keys.discard(tracked.key)
        state = TaskState(self.recorder.ledger.columns["state"][tracked.row])
        if not state.is_final:
            self.recorder.finish(tracked, TaskState.CANCELLED)

    def _set_state(self, tracked: TrackedTask, state: TaskState) -> None:
        if tracked.key in self.parked:
            state = TaskState.PAUSED if tracked.key in self.breakers else TaskState.RETRYING
        self.recorder.ledger.set_state(tracked.row, state)

    def _on_unpark(self, key: Any) -> None:
        tracked = self.records[key]
        tracked.runnable_at = time()
        self.placement.restrict((key,))
        if self.scheduler.tasks[key].state == "waiting":
            # For an input that was lost with the same worker: it stays where it is.
            self._on_waiting(tracked, "waiting", "", {})
        elif self.scheduler.tasks[key].state == "released":
            self._end_unneeded(tracked)

    # --- tasks that ended without a word of ours ----------------------------------

    def _report_native_error(self, tracked: TrackedTask, kwargs: dict[str, Any]) -> None:
        # The attempt could not speak for itself: it is not ours, or could not be unpickled.
        self.recorder.end_attempt(
            tracked, attempt_from_dask(kwargs), retry_in_s=None, is_final=True
        )

    def _fail_with_input(self, tracked: TrackedTask, blamed: Any) -> None:
        tracked.reason = f"its input {blamed} failed"
        cause = self.records.get(blamed)
        if cause is not None:
            error = self.recorder.ledger.columns["error"][cause.row]
            self.recorder.ledger.set(tracked.row, error=error)

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
        counts = self.recorder.ledger.counts
        return any(counts[state] for state in TaskState if not state.is_final)

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """A client vanished or closed: what it wanted stays wanted by the host."""
        logger.info("client %s left; its tasks go on", client)

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Write down a worker that came."""
        ws = scheduler.workers[worker]
        self.recorder.worker_came(worker, str(ws.name), ws.host, ws.nthreads)
        self.losses.on_added(worker, ws.nanny)

    def remove_worker(self, scheduler: Scheduler, worker: str, **kwargs: Any) -> None:
        """Write down a worker that went, and settle what it was doing."""
        self.executing.close(worker)
        self.recorder.worker_left(worker)
        self.losses.on_removed(worker)

    def log_event(self, topic: str, msg: Any) -> None:
        """Follow tasks that change their worker without a transition.

        Work stealing says so. What it does in the very moment in which a worker is lost is
        learned from the words that tell of the loss, just before the tasks are released.
        """
        if topic == "stealing" and msg[0] == "confirm":
            self._on_stolen(self.records.get(msg[1]), thief=msg[4])
        elif topic == "all" and isinstance(msg, dict) and msg.get("action") == "remove-worker":
            self.losses.on_leaving(msg["worker"], is_expected=msg["expected"])
            for key in msg["processing-tasks"]:
                tracked = self.records.get(key)
                if tracked is not None and tracked.worker != msg["worker"]:
                    self.release_thread(tracked)
                    tracked.worker = msg["worker"]

    def _on_stolen(self, tracked: TrackedTask | None, thief: str) -> None:
        ws = self.scheduler.workers.get(thief)
        if tracked is None or ws is None:
            return
        self.release_thread(tracked)
        self.recorder.assign(tracked, thief)
        if self.executing.assign(thief, ws.nthreads, tracked.key):
            self.recorder.begin_attempt(tracked)
