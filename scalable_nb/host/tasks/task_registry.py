"""All tasks that the host follows, those that are executing, and their states in the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from time import time
from typing import Any, Final

from distributed.scheduler import WorkerState

from scalable_nb.dask_adapter.scheduler import SchedulerAdapter
from scalable_nb.faults.decision import PolicyTerms
from scalable_nb.host.notices import Notices
from scalable_nb.host.tasks.run_recorder import RunRecorder
from scalable_nb.host.tasks.task import RECOMPUTED, RECOVERED, TaskBatch, TrackedTask
from scalable_nb.protocol.annotations import ANNOTATION, CacheFacts
from scalable_nb.protocol.call import registered_name
from scalable_nb.protocol.operations import PEAK_METRIC
from scalable_nb.telemetry.rows import CANCELLED_BY_USER, RELEASED, TaskState

_MAX_PENDING_BATCHES: Final = 10_000


class TaskRegistry(dict[Any, TrackedTask]):
    """The tracked tasks by key, and the batches whose tasks have yet to arrive.

    A `dict` itself, because it is read for every transition of every task.

    Parameters
    ----------
    recorder : RunRecorder
        Gives each task its row in the ledger.
    """

    def __init__(self, recorder: RunRecorder) -> None:
        super().__init__()
        self._recorder = recorder
        self._batches: dict[str, TaskBatch] = {}
        self._keys_by_name: dict[str, Any] = {}

    def expect(self, batch: TaskBatch) -> None:
        """Remember what the tasks of a graph have in common that is about to arrive."""
        self._batches[batch.batch_id] = batch
        if batch.runs_to_end:  # tasks that are here already are not entered again
            for key in batch.previews.keys() & self.keys():
                self[key].runs_to_end = True
        if len(self._batches) > _MAX_PENDING_BATCHES:
            # Batches of calls that another client had submitted before are never entered.
            del self._batches[next(iter(self._batches))]

    def enter_batches(self, annotations: dict[Any, dict[str, Any]]) -> Iterator[TaskBatch]:
        """Enter the new tasks of expected batches; yield each batch that had arrived."""
        # In the order of the client's call; Dask's own is that of a set.
        for batch_id in dict.fromkeys(terms.get("batch", "") for terms in annotations.values()):
            batch = self._batches.pop(batch_id, None)
            if batch is None:
                continue
            for key in list(batch.previews):
                if key in annotations and key not in self:
                    batch.terms = batch.terms or PolicyTerms.from_wire(annotations[key])
                    self.enter(key, batch, batch.terms)
                    if registered_name(key) != key:
                        self._keys_by_name[registered_name(key)] = key
            yield batch

    def enter(self, key: Any, batch: TaskBatch, terms: PolicyTerms) -> TrackedTask:
        """Enter one new task."""
        tracked = self[key] = self._recorder.open(key, batch, terms)
        return tracked

    def remove(self, key: Any) -> None:
        """Forget a task."""
        del self[key]
        self._keys_by_name.pop(registered_name(key), None)

    def key_of(self, name: str) -> Any:
        """Return the key of the task with this `registered_name`."""
        return self._keys_by_name.get(name, name)


class ExecutingTasks:
    """The threads of all workers, and the tasks that have one.

    The scheduler sends a worker more tasks than it has threads, so that it never waits for the
    next one. For the user only as many run as there are threads; the others are queued. Tasks get
    threads in the order in which they were sent. A worker goes by priority, which is the same
    order unless priorities differ.
    """

    def __init__(self) -> None:
        self._free: dict[str, int] = {}
        self._executing: dict[Any, str] = {}
        self._ready: dict[str, dict[Any, None]] = {}

    def assign(self, worker: str, threads: int, key: Any) -> bool:
        """Record a task sent to a worker; return whether it got a thread."""
        free = self._free.setdefault(worker, threads)
        if free > 0:
            self._free[worker] = free - 1
            self._executing[key] = worker
            return True
        self._ready.setdefault(worker, {})[key] = None
        return False

    def release(self, worker: str, key: Any) -> Any | None:
        """Record that a task left a worker; return the queued task that got its thread, if any."""
        ready = self._ready.get(worker, {})
        if self._executing.get(key) != worker:
            ready.pop(key, None)
            return None
        del self._executing[key]
        if not ready:
            self._free[worker] += 1
            return None
        following = next(iter(ready))
        del ready[following]
        self._executing[following] = worker
        return following

    def ready(self, worker: str) -> list[Any]:
        """Return the tasks that are queued on a worker."""
        return list(self._ready.get(worker, ()))

    def close(self, worker: str) -> None:
        """Forget a worker; a task that was stolen from it may still have a thread there."""
        self._free.pop(worker, None)
        self._ready.pop(worker, None)
        self._executing = {key: where for key, where in self._executing.items() if where != worker}


class TaskStates:
    """Writes the states of tasks into the ledger as the scheduler moves them.

    Parameters
    ----------
    registry : TaskRegistry
    recorder : RunRecorder
    adapter : SchedulerAdapter
    executing : ExecutingTasks
    notices : Notices
    restrict : callable
        Binds tasks to their kind of worker before they become runnable: `TaskPlacement.restrict`.
    """

    def __init__(
        self,
        registry: TaskRegistry,
        recorder: RunRecorder,
        adapter: SchedulerAdapter,
        executing: ExecutingTasks,
        notices: Notices,
        restrict: Callable[[Iterable[Any]], None],
    ) -> None:
        self._registry = registry
        self._recorder = recorder
        self._ledger = recorder.ledger
        self._adapter = adapter
        self._executing = executing
        self._notices = notices
        self._restrict = restrict
        self._reported_problems: set[str] = set()
        self._reported_batches: set[str] = set()

    # --- on a worker -----------------------------------------------------------------

    def assign(self, tracked: TrackedTask, ws: WorkerState) -> None:
        """Record that a task was sent to a worker, and its start if a thread is free."""
        self._recorder.assign(tracked, ws.address)
        if self._executing.assign(ws.address, ws.nthreads, tracked.key):
            self._recorder.begin_attempt(tracked)

    def release_thread(self, tracked: TrackedTask) -> None:
        """Pass the thread of a task on to the next one that is queued on its worker."""
        following = self._registry.get(self._executing.release(tracked.worker, tracked.key))
        if following is not None:
            self._recorder.begin_attempt(following)

    def move(self, tracked: TrackedTask, worker: str) -> None:
        """Record that a task is on another worker, where nothing is known to have started it."""
        self.release_thread(tracked)
        tracked.worker = worker

    # --- without a worker ------------------------------------------------------------

    def set_state(self, tracked: TrackedTask, state: TaskState) -> None:
        """Record that a task is not on a worker, for this reason unless it is parked."""
        if tracked.is_parked:
            state = TaskState.PAUSED if tracked.is_paused else TaskState.RETRYING
        self._ledger.set_state(tracked.row, state)

    def set_waiting(self, tracked: TrackedTask) -> None:
        """Record that a task waits for its inputs, or for its turn where it has them."""
        is_blocked = bool(self._adapter.tasks[tracked.key].waiting_on)
        self.set_state(tracked, TaskState.WAITING if is_blocked else TaskState.QUEUED)

    def on_unpark(self, tracked: TrackedTask) -> None:
        """Prepare a parked task for running again."""
        tracked.runnable_at = time()
        self._restrict((tracked.key,))
        state = self._adapter.tasks[tracked.key].state
        if state == "waiting":
            # For an input that was lost with the same worker: it stays where it is.
            self.set_waiting(tracked)
        elif state == "released":
            self.cancel_unneeded(tracked)

    def cancel_unneeded(self, tracked: TrackedTask) -> None:
        """Record the end of a task that stays only for what depended on it and failed."""
        ts = self._adapter.tasks[tracked.key]
        if not (ts.who_wants or ts.waiters or tracked.is_parked or tracked.is_native):
            self.cancel_unfinished(tracked)

    def cancel_unfinished(self, tracked: TrackedTask) -> None:
        """Record that a task ended without an outcome, unless it had one."""
        if TaskState(self._ledger.columns["state"][tracked.row]).is_final:
            return
        if tracked.is_cancelled:
            self._recorder.finish(tracked, TaskState.CANCELLED, reason=CANCELLED_BY_USER)
        elif tracked.reason == RECOMPUTED:
            self._recorder.find_again(tracked)
        elif tracked.batch.is_known:
            self._ledger.set_state(tracked.row, TaskState.CACHED)
        else:
            self._recorder.finish(tracked, TaskState.NEVER_RAN, reason=RELEASED)

    def lose_result(self, tracked: TrackedTask) -> None:
        """Note that a lost result is computed again; to the user that is another attempt."""
        tracked.reason = RECOMPUTED
        tracked.succeeded_at = self._ledger.columns["started_at"][tracked.row]

    # --- outcomes --------------------------------------------------------------------

    def succeed(self, tracked: TrackedTask, values: dict[str, Any]) -> None:
        """Record a result, from the values of the transition to ``memory``."""
        wire = (values.get("metadata") or {}).get(ANNOTATION)
        facts = CacheFacts.from_wire(wire) if wire else None
        if facts is not None:
            self._record_cache(tracked, facts)
        started_at = duration_s = None
        for span in values.get("startstops") or ():
            if span["action"] == "compute":
                started_at, duration_s = span["start"], span["stop"] - span["start"]
        is_hit = facts is not None and facts.event == "hit" and tracked.reason != RECOVERED
        is_found = started_at is None or started_at <= tracked.succeeded_at
        if tracked.reason == RECOMPUTED and (is_hit or is_found):
            # Dask asked again for what this very run had computed and stored, or for what the
            # worker had just fetched from the one that was lost: the function was not called.
            self._recorder.find_again(tracked)
            return
        if is_hit and tracked.batch.is_known:
            # Its client had answered with the result before another task needed it.
            self._ledger.set_state(tracked.row, TaskState.CACHED)
            return
        ws = self._adapter.workers.get(tracked.worker)
        self._recorder.finish(
            tracked,
            TaskState.CACHED if is_hit else TaskState.SUCCEEDED,
            started_at=started_at,
            duration_s=duration_s,
            pid=ws.pid if ws is not None else None,
            memory_bytes=ws.metrics.get(PEAK_METRIC) if ws is not None else None,
            result_bytes=values.get("nbytes"),
        )

    def _record_cache(self, tracked: TrackedTask, facts: CacheFacts) -> None:
        self._recorder.record_cache(tracked, facts)
        if facts.event:
            tracked.has_stored_result = True
        problem, function = facts.problem, tracked.batch.function
        # Once per function: whatever ails the store, it ails it for the next task too.
        if problem and self._reported_problems.isdisjoint((function, problem)):
            self._reported_problems.update((function, problem))
            self._notices.notify(
                f"{tracked.label} is done, but: {problem}. Others are in cache.jsonl."
            )

    def blame_input(self, tracked: TrackedTask, blamed: Any) -> None:
        """Note that a task fails because its input failed."""
        tracked.reason = f"its input {blamed} failed"
        cause = self._registry.get(blamed)
        if cause is not None:
            self._ledger.set(tracked.row, error=self._ledger.columns["error"][cause.row])

    def fail(self, tracked: TrackedTask) -> None:
        """Record that a task failed, after all retries."""
        tracked.exception = b""
        batch_id = tracked.batch.batch_id
        # Once per batch; the others are in the journal.
        if tracked.reason == RECOMPUTED and batch_id not in self._reported_batches:
            self._reported_batches.add(batch_id)
            self._notices.notify(
                f"{tracked.label} had succeeded, its result was lost with its worker, "
                "and computing it again failed. `cache: true` in its `tasks:` entry keeps results "
                "on disk."
            )
        self._recorder.finish(tracked, TaskState.FAILED)
