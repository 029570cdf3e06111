"""The scheduler plugin that follows every task and worker.

It runs in the scheduler's event loop. `TaskTracker.transition` is on the path of every task, so
it does no more than a few assignments; all that is formatted is formatted when the journal is
written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from time import time
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.scheduler import Scheduler, WorkerState

from scalable_nb.dask_adapter.scheduler import SchedulerAdapter
from scalable_nb.host.tasks.batch_breakers import BatchBreakers
from scalable_nb.host.tasks.client_leases import ClientLeases
from scalable_nb.host.tasks.native_tasks import NativeTasks
from scalable_nb.host.tasks.parked_tasks import ParkedTasks
from scalable_nb.host.tasks.placement import TaskPlacement
from scalable_nb.host.tasks.revocations import Revocations
from scalable_nb.host.tasks.run_recorder import RunRecorder
from scalable_nb.host.tasks.task import TaskBatch, TrackedTask
from scalable_nb.host.tasks.task_registry import ExecutingTasks, TaskRegistry, TaskStates
from scalable_nb.host.tasks.task_rerun import TaskRerun
from scalable_nb.host.tasks.worker_losses import WorkerLosses
from scalable_nb.protocol.annotations import ANNOTATION
from scalable_nb.telemetry.rows import TaskState

logger = logging.getLogger(__name__)


class TaskTracker(SchedulerPlugin):
    """Turns events of the scheduler into calls; decides nothing itself.

    Parameters
    ----------
    adapter : SchedulerAdapter
    registry : TaskRegistry
    recorder : RunRecorder
    executing : ExecutingTasks
    leases : ClientLeases
    placement : TaskPlacement
    states : TaskStates
    parked : ParkedTasks
    breakers : BatchBreakers
    losses : WorkerLosses
    revocations : Revocations
    native : NativeTasks
    rerun : TaskRerun
    store_result : callable
        Called with a succeeded task whose result was requested to be stored.
    on_worker : callable
        Called with a new worker before it gets tasks.
    on_batch : callable
        Called with a batch and the time limit of its tasks before any of them can run.
    """

    name = "scalable-task-tracker"

    def __init__(
        self,
        adapter: SchedulerAdapter,
        registry: TaskRegistry,
        recorder: RunRecorder,
        executing: ExecutingTasks,
        leases: ClientLeases,
        placement: TaskPlacement,
        states: TaskStates,
        parked: ParkedTasks,
        breakers: BatchBreakers,
        losses: WorkerLosses,
        revocations: Revocations,
        native: NativeTasks,
        rerun: TaskRerun,
        store_result: Callable[[TrackedTask], None],
        on_worker: Callable[[WorkerState], None],
        on_batch: Callable[[TaskBatch, float | None], None],
    ) -> None:
        self._adapter = adapter
        self._registry = registry
        self._recorder = recorder
        self._executing = executing
        self._leases = leases
        self._placement = placement
        self._states = states
        self._parked = parked
        self._breakers = breakers
        self._losses = losses
        self._revocations = revocations
        self._native = native
        self._rerun = rerun
        self._store_result = store_result
        self._on_worker = on_worker
        self._on_batch = on_batch
        # Bound once: `transition` calls them for every transition of every task.
        self._find = registry.get
        self._release_thread = states.release_thread
        self._on_finish: dict[str, Callable[[TrackedTask, str, dict[str, Any]], None]] = {
            "processing": self._on_processing,
            "memory": self._on_memory,
            "erred": self._on_erred,
            "released": self._on_released,
            "waiting": self._on_waiting,
            "queued": self._on_queued,
            "no-worker": self._on_no_worker,
            "forgotten": self._on_forgotten,
        }

    # --- tasks -------------------------------------------------------------------

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
        registry, ours = self._registry, annotations.get(ANNOTATION) or {}
        if ours:
            for batch in registry.enter_batches(ours):
                if batch.terms is not None:
                    self._on_batch(batch, batch.terms.timeout_s)
            self._placement.restrict(ours)
        self._native.enter(tasks)
        failed = filter(self._rerun.is_failed, keys)
        again = {key: ours.get(key) for key in failed if not registry[key].is_native}
        if again:
            # A fresh submission of a call that failed before: Dask would hand out the old error.
            self._rerun.run_again(again)

    def transition(
        self, key: Any, start: str, finish: str, *args: Any, stimulus_id: str = "", **kwargs: Any
    ) -> None:
        """Follow a task; called for every transition of every task."""
        tracked = self._find(key)
        if tracked is None:
            if finish != "erred":
                return
            tracked = self._native.enter_failed(key)
        if start == "processing":
            self._release_thread(tracked)
        self._on_finish[finish](tracked, start, kwargs)
        if tracked.is_parked:
            self._parked.on_transition(tracked, finish)

    def _on_processing(self, tracked: TrackedTask, start: str, values: dict[str, Any]) -> None:
        ts = self._adapter.tasks[tracked.key]
        if not tracked.is_native:
            # Worker losses have budgets of our own: Dask is not to count them as well.
            self._adapter.forget_losses(ts)
        ws = ts.processing_on
        assert ws is not None  # that is what processing means
        self._states.assign(tracked, ws)

    def _on_memory(self, tracked: TrackedTask, start: str, values: dict[str, Any]) -> None:
        self._breakers.on_success(tracked)
        self._states.succeed(tracked, values)
        if tracked.store_limit_bytes is not None and not tracked.has_stored_result:
            self._store_result(tracked)

    def _on_erred(self, tracked: TrackedTask, start: str, values: dict[str, Any]) -> None:
        self._parked.drop(tracked)
        self._breakers.forget(tracked)
        blamed = self._adapter.blamed_for(tracked.key)
        if blamed not in (None, tracked.key):
            self._states.blame_input(tracked, blamed)
        elif not tracked.is_reported:
            self._native.report_error(tracked, values)
        self._states.fail(tracked)

    def _on_released(self, tracked: TrackedTask, start: str, values: dict[str, Any]) -> None:
        tracked.runnable_at = time()
        ts = self._adapter.tasks[tracked.key]
        is_needed = bool(ts.who_wants or ts.waiters)
        if start == "memory" and is_needed:
            self._states.lose_result(tracked)
        elif tracked.is_native:
            self._native.on_released(tracked)
        elif start == "processing":
            if tracked.worker not in self._adapter.workers:
                self._losses.suspect(tracked)
            elif is_needed and not tracked.is_reported:
                self._revocations.ask(tracked)
        self._placement.restrict((tracked.key,))
        self._states.cancel_unneeded(tracked)

    def _on_waiting(self, tracked: TrackedTask, start: str, values: dict[str, Any]) -> None:
        self._states.set_waiting(tracked)

    def _on_queued(self, tracked: TrackedTask, start: str, values: dict[str, Any]) -> None:
        self._states.set_state(tracked, TaskState.QUEUED)

    def _on_no_worker(self, tracked: TrackedTask, start: str, values: dict[str, Any]) -> None:
        self._states.set_state(tracked, TaskState.PENDING)

    def _on_forgotten(self, tracked: TrackedTask, start: str, values: dict[str, Any]) -> None:
        self._parked.drop(tracked)
        self._breakers.forget(tracked)
        self._placement.forget(tracked.key)
        self._registry.remove(tracked.key)
        self._states.cancel_unfinished(tracked)

    # --- clients and workers -----------------------------------------------------

    def add_client(self, scheduler: Scheduler, client: str) -> None:
        """Take note of a client that connected."""
        self._leases.add_client(client)

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """Log that a client vanished or closed."""
        logger.info("client %s left; its claims stay", client)

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Write down a worker that came."""
        ws = scheduler.workers[worker]
        self._adapter.follow_worker(ws, self._recorder.addresses_of(str(ws.name)))
        job_id_of = self._losses.on_added(worker, ws.name, ws.nanny)
        self._recorder.worker_came(worker, str(ws.name), ws.host, ws.nthreads, job_id_of)
        self._on_worker(ws)

    def remove_worker(self, scheduler: Scheduler, worker: str, **kwargs: Any) -> None:
        """Write down a worker that went, and settle what it was doing."""
        self._executing.close(worker)
        self._recorder.worker_left(worker)
        self._losses.on_removed(worker, self._revocations.of_lost(worker))

    def log_event(self, topic: str, msg: Any) -> None:
        """Follow tasks that change their worker without a transition, and clients that leave.

        Work stealing reports the tasks. What it does in the moment in which a worker is lost is
        learned from the event of the loss, just before the tasks are released. The same holds for
        the tasks that a client wants.
        """
        if topic == "stealing" and msg[0] == "confirm":
            self._on_stolen(self._find(msg[1]), thief=msg[4])
        elif topic == "all" and isinstance(msg, dict) and msg.get("action") == "remove-client":
            self._leases.leave_claims(msg["client"])
        elif topic == "all" and isinstance(msg, dict) and msg.get("action") == "remove-worker":
            self._losses.on_leaving(msg["worker"], is_expected=msg["expected"])
            for key in msg["processing-tasks"]:
                tracked = self._find(key)
                if tracked is not None and tracked.worker != msg["worker"]:
                    self._states.move(tracked, msg["worker"])

    def _on_stolen(self, tracked: TrackedTask | None, thief: str) -> None:
        ws = self._adapter.workers.get(thief)
        if tracked is not None and ws is not None:
            self._release_thread(tracked)
            self._states.assign(tracked, ws)
