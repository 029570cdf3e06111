"""Handle requests of kernels: retry or fail waiting tasks, resume, cancel, report.

The functions are handlers on the scheduler; a client calls them through its `HostApi`.
"""

from __future__ import annotations

import asyncio
import pickle
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from time import time
from typing import Any, Final

from scalable_nb.dask_adapter.graphs import arguments_of, input_keys_of
from scalable_nb.dask_adapter.scheduler import SchedulerAdapter
from scalable_nb.errors import TaskTimeoutError
from scalable_nb.host.notices import Notices
from scalable_nb.host.tasks.attempt_failures import AttemptFailures
from scalable_nb.host.tasks.batch_breakers import BatchBreakers
from scalable_nb.host.tasks.client_leases import ClientLeases
from scalable_nb.host.tasks.parked_tasks import ParkedTasks
from scalable_nb.host.tasks.run_recorder import NEEDS_USER, RunRecorder
from scalable_nb.host.tasks.task import TaskBatch, TrackedTask
from scalable_nb.host.tasks.task_registry import TaskRegistry
from scalable_nb.protocol.call import Call
from scalable_nb.protocol.messages import (
    AnsweredCalls,
    BatchMessage,
    CallReply,
    CallRequest,
    CancelRequest,
    EmptyMessage,
    InputsChanged,
    LedgerRequest,
    LeftOutCalls,
    PausesReply,
    ResumeRequest,
    StatusReply,
    TaskCount,
    TaskKeys,
    WorkerStatus,
)
from scalable_nb.protocol.operations import COMPONENT_PREFIX
from scalable_nb.telemetry.ledger import Delta
from scalable_nb.telemetry.rows import TaskState, key_text

#: A reader gets a new delta at most this often.
DELTA_INTERVAL_S: Final = 0.25

#: How long to wait for reports that a client sent before its request.
HEARD_WITHIN_S: Final = 5.0


class ClientRequests:
    """The handlers for kernels.

    Parameters
    ----------
    registry : TaskRegistry
    recorder : RunRecorder
    adapter : SchedulerAdapter
    parked : ParkedTasks
    breakers : BatchBreakers
    failures : AttemptFailures
    leases : ClientLeases
    notices : Notices
    jobs : callable
        Returns the known batch jobs of the workers, one row each.
    host_job : callable
        Returns the row of the batch job that this host runs in; empty if it is not in a job.
    """

    def __init__(
        self,
        registry: TaskRegistry,
        recorder: RunRecorder,
        adapter: SchedulerAdapter,
        parked: ParkedTasks,
        breakers: BatchBreakers,
        failures: AttemptFailures,
        leases: ClientLeases,
        notices: Notices,
        jobs: Callable[[], list[dict[str, Any]]],
        host_job: Callable[[], dict[str, Any]],
    ) -> None:
        self._registry = registry
        self._recorder = recorder
        self._ledger = recorder.ledger
        self._adapter = adapter
        self._parked = parked
        self._breakers = breakers
        self._failures = failures
        self._leases = leases
        self._notices = notices
        self._jobs = jobs
        self._host_job = host_job
        # By client: the number of its reports on calls answered by stored results.
        self._answered: Counter[str] = Counter()

    # --- new tasks -------------------------------------------------------------------

    def add_batch(self, client: str, message: BatchMessage) -> None:
        """Note the shared properties of the tasks that a client is about to submit."""
        self._recorder.inputs.announce(map(key_text, message.keys), is_known=message.is_known)
        self._registry.expect(TaskBatch.announced(message))

    def add_answered(self, client: str, message: AnsweredCalls) -> None:
        """Record calls that a client answered with stored results."""
        self._recorder.enter_answered(message)
        self._answered[client] += 1

    def add_left_out(self, client: str, message: LeftOutCalls) -> None:
        """Record calls of an earlier run that do not run in this one."""
        self._recorder.enter_left_out(message)

    def change_inputs(self, client: str, message: InputsChanged) -> None:
        """Record that tasks compute other numbers of inputs than their announcements say."""
        changes = zip(map(key_text, message.keys), message.changes, strict=True)
        self._recorder.inputs.change(dict(changes))

    # --- waiting tasks ---------------------------------------------------------------

    def retry_now(self, request: TaskKeys) -> TaskKeys:
        """Retry tasks that wait between two attempts immediately; return their keys."""
        waiting = self._waiting(request)
        for key in waiting.keys:
            self._parked.unpark(self._registry[key])
        return waiting

    def give_up(self, request: TaskKeys) -> TaskKeys:
        """Fail tasks that wait between two attempts with their last error; return their keys."""
        waiting = self._waiting(request)
        for key in waiting.keys:
            tracked = self._registry[key]
            self._recorder.give_up(tracked)
            error = tracked.exception or TaskTimeoutError(f"{tracked.label} was given up")
            self._failures.fail(tracked, error)
        return waiting

    def _waiting(self, request: TaskKeys) -> TaskKeys:
        timed = filter(self._parked.is_timed, request.keys)
        return TaskKeys(tuple(filter(self._has_no_worker, timed)))

    def _has_no_worker(self, key: Any) -> bool:
        ts = self._adapter.tasks.get(key)
        return ts is not None and ts.state == "no-worker"

    # --- single tasks ----------------------------------------------------------------

    def resume_tasks(self, request: TaskKeys) -> TaskKeys:
        """Let paused tasks continue; return their keys."""
        return TaskKeys(tuple(self._breakers.resume(request.keys)))

    def cancel_tasks(self, request: TaskKeys) -> TaskKeys:
        """Cancel unfinished tasks and return their keys.

        Tasks that other kernels claim are cancelled too, also if the kernel no longer exists.
        """
        found = ((key, self._registry.get(key)) for key in request.keys)
        to_cancel = [key for key, tracked in found if tracked and self._is_unfinished(tracked)]
        self._leases.cancel(to_cancel)
        return TaskKeys(tuple(to_cancel))

    def call(self, request: CallRequest) -> CallReply | None:
        """Return the call of a task as bytes, which the host does not unpickle.

        None if the task is forgotten, or is a native task of Dask.
        """
        key = request.key
        tracked, ts = self._registry.get(key), self._adapter.tasks.get(key)
        if tracked is None or tracked.is_native or ts is None or ts.run_spec is None:
            return None
        (call,) = (part for part in arguments_of(ts.run_spec) if isinstance(part, Call))
        return CallReply(
            label=tracked.label,
            call=pickle.dumps(call),
            inputs=tuple(input_keys_of(ts.run_spec)),
            is_async=tracked.batch.is_async,
            idempotent=tracked.terms.idempotent,
            timeout_s=tracked.terms.timeout_s,
        )

    def blocking_pauses(self, request: TaskKeys) -> PausesReply:
        """Return the pauses that keep all these tasks from continuing; none if any can continue."""
        if self._recorder.has_work():
            return PausesReply(())
        tracked = [self._registry.get(key) for key in request.keys]
        states = {each and TaskState(self._ledger.columns["state"][each.row]) for each in tracked}
        return PausesReply(tuple(self._breakers.pauses()) if states <= NEEDS_USER else ())

    # --- whole batches ---------------------------------------------------------------

    def resume_batches(self, request: ResumeRequest) -> TaskCount:
        """Resume the paused tasks of these batches; return their number."""
        paused = self._unfinished(request.batches, only_paused=True)
        return TaskCount(len(self._breakers.resume(paused)))

    def cancel_batches(self, request: CancelRequest) -> TaskCount:
        """Cancel the unfinished tasks of these batches; return their number.

        Tasks that other kernels claim are cancelled too. Finished tasks stay.
        """
        keys = self._unfinished(request.batches, only_paused=request.only_paused)
        self._leases.cancel(keys)
        return TaskCount(len(keys))

    def _unfinished(self, batches: Collection[str] | None, *, only_paused: bool) -> list[Any]:
        return [
            key
            for key, tracked in self._registry.items()
            if (batches is None or tracked.batch.name in batches)
            and self._is_unfinished(tracked)
            and (tracked.is_paused or not only_paused)
        ]

    def _is_unfinished(self, tracked: TrackedTask) -> bool:
        return not TaskState(self._ledger.columns["state"][tracked.row]).is_final

    # --- state of the run ------------------------------------------------------------

    async def ledger_delta(self, request: LedgerRequest) -> Delta | None:
        """Return the changes since a sequence number, or None if there are none in time.

        Calls that the client answered itself before the request are included: their reports
        take another way and may arrive later.
        """
        ledger = self._ledger
        patience = time() + HEARD_WITHIN_S
        while self._answered[request.client] < request.reports_sent and time() < patience:
            await asyncio.sleep(0.01)
        since = request.since if request.ledger_id == ledger.ledger_id else 0
        deadline = time() + request.wait_s
        while not ledger.has_changed(since):
            if time() >= deadline:
                return None
            await asyncio.sleep(DELTA_INTERVAL_S)
        return ledger.delta(since)

    async def flush(self, request: EmptyMessage) -> None:
        """Write all queued rows of the journal to disk."""
        self._recorder.flush()

    def status(self, request: EmptyMessage) -> StatusReply:
        """Return workers, counts and notices."""
        return StatusReply(
            counts=self._ledger.count(),
            notices=tuple(self._notices.texts()),
            pauses=tuple(self._breakers.pauses()),
            jobs=tuple(self._jobs()),
            host_job=self._host_job(),
            workers=tuple(
                WorkerStatus(
                    name=self._recorder.worker_name(ws.address),
                    address=ws.address,
                    component=_component(ws.resources),
                    state="busy" if ws.processing else "idle",
                    threads=ws.nthreads,
                    memory_bytes=ws.metrics.get("memory", 0),
                    memory_limit_bytes=ws.memory_limit,
                    host=ws.host,
                )
                for ws in self._adapter.workers.values()
            ),
        )


def _component(resources: Iterable[str]) -> str:
    """Return the component that the worker is reserved for, or an empty string."""
    found = [name for name in resources if name.startswith(COMPONENT_PREFIX)]
    return found[0].removeprefix(COMPONENT_PREFIX) if found else ""
