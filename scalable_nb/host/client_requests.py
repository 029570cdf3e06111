"""What kernels ask of the host: run again, hurry, give up, go on, tell, stop.

The functions are handlers on the scheduler; a client calls them with its `ask`.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Collection, Iterable, Mapping
from time import time
from typing import TYPE_CHECKING, Any, Final

from dask._task_spec import Alias

from scalable_nb.dask_adapter.rerun_transitions import rerun
from scalable_nb.errors import TaskTimeoutError
from scalable_nb.faults.decision import PolicyTerms
from scalable_nb.protocol.annotations import ANNOTATION, STORAGE_ENTRIES
from scalable_nb.protocol.call import Call
from scalable_nb.protocol.messages import (
    CallReply,
    CallRequest,
    CancelRequest,
    EmptyMessage,
    LedgerRequest,
    ReopenedTasks,
    ResubmitReply,
    ResubmitRequest,
    ResumeRequest,
    StatusReply,
    TaskCount,
    TaskKeys,
    WorkerStatus,
)
from scalable_nb.protocol.operations import COMPONENT_PREFIX, Operation
from scalable_nb.protocol.wire import answering, receiving
from scalable_nb.telemetry.ledger import Delta
from scalable_nb.telemetry.rows import TaskState
from scalable_nb.worker.attempt import run_async_attempt

if TYPE_CHECKING:
    from scalable_nb.host.tasks.tracker import TaskTracker

#: A reader gets a new delta at most this often.
DELTA_INTERVAL_S: Final = 0.25

#: How long a client's own messages may take that it had sent before it asked.
HEARD_WITHIN_S: Final = 5.0


class ClientRequests:
    """The handlers for kernels.

    Parameters
    ----------
    tracker : TaskTracker
        Its scheduler gets the handlers.
    """

    def __init__(self, tracker: TaskTracker) -> None:
        self._tracker = tracker
        self._scheduler = tracker.scheduler
        self._scheduler.stream_handlers[Operation.TASKS_REOPENED] = receiving(
            ReopenedTasks, self.reopen
        )
        self._scheduler.handlers |= {
            Operation.RESUBMIT: answering(ResubmitRequest, self.resubmit),
            Operation.RETRY_NOW: answering(TaskKeys, self.retry_now),
            Operation.GIVE_UP: answering(TaskKeys, self.give_up),
            Operation.RESUME_TASKS: answering(TaskKeys, self.resume_tasks),
            Operation.CANCEL_TASKS: answering(TaskKeys, self.cancel_tasks),
            Operation.RESUME_BATCHES: answering(ResumeRequest, self.resume_batches),
            Operation.CANCEL_BATCHES: answering(CancelRequest, self.cancel_batches),
            Operation.GET_CALL: answering(CallRequest, self.call),
            Operation.GET_LEDGER: answering(LedgerRequest, self.ledger_delta),
            Operation.FLUSH: answering(EmptyMessage, self.flush),
            Operation.STATUS: answering(EmptyMessage, self.status),
            Operation.STOP: answering(EmptyMessage, self.stop),
        }

    # --- run again -----------------------------------------------------------------

    def reopen(self, client: str, message: ReopenedTasks) -> None:
        """A client submitted calls again whose failed futures it still holds."""
        failed = filter(self.is_failed, message.keys)
        self.run_again(dict.fromkeys(failed, message.annotation))

    def resubmit(self, request: ResubmitRequest) -> ResubmitReply:
        """Run failed tasks again under their own keys, with changed terms.

        Tasks that are not idempotent are left out unless they are named.
        """
        records, changes = self._tracker.records, request.changes
        failed = [key for key in request.keys if self.is_failed(key)]
        chosen = {key for key in failed if records[key].terms.idempotent or key in request.named}
        reply = ResubmitReply(
            chosen=tuple(key for key in failed if key in chosen),
            left_out=tuple(key for key in failed if key not in chosen),
        )
        if not request.dry_run:
            wires = {key: {**records[key].terms.to_wire(), **changes} for key in reply.chosen}
            self.run_again(wires)
        return reply

    def is_failed(self, key: Any) -> bool:
        """Whether a task failed for good."""
        ts = self._scheduler.tasks.get(key)
        return key in self._tracker.records and ts is not None and ts.state == "erred"

    def run_again(self, wires: Mapping[Any, dict[str, Any] | None]) -> None:
        """Run failed tasks and their failed inputs again; None keeps a task's terms."""
        again = self._with_failed_inputs(wires)
        for key in again:
            tracked, ts = self._tracker.records[key], self._scheduler.tasks[key]
            terms, wire = tracked.terms, wires.get(key)
            if wire is not None and not tracked.is_native:
                terms = PolicyTerms.from_wire(wire)
                if wire.get("component"):
                    self._tracker.recorder.move(tracked, wire["component"])
                    self._tracker.placement.forget(key)
                annotations = ts.annotations or {}
                before = annotations.get(ANNOTATION, {})
                unchanged = {name: before[name] for name in STORAGE_ENTRIES if name in before}
                ts.annotations = {**annotations, ANNOTATION: {**unchanged, **wire}}
            self._tracker.recorder.reopen(tracked, terms)
            self._tracker.at_most_once.reset(key)
            ts.suspicious = 0
        if wires:
            rerun(self._scheduler, again)

    def _with_failed_inputs(self, keys: Iterable[Any]) -> list[Any]:
        # Dask retries the failed inputs of a task with it.
        found: dict[Any, None] = {}
        stack = list(keys)
        while stack:
            key = stack.pop()
            if key not in found and self.is_failed(key):
                found[key] = None
                stack += [dts.key for dts in self._scheduler.tasks[key].dependencies]
        return list(found)

    # --- between two attempts --------------------------------------------------------

    def retry_now(self, request: TaskKeys) -> TaskKeys:
        """End the waiting of tasks between two attempts; returns their keys."""
        waiting = self._waiting(request)
        for key in waiting.keys:
            self._tracker.parked.unpark(key)
        return waiting

    def give_up(self, request: TaskKeys) -> TaskKeys:
        """Let tasks between two attempts fail with their last error; returns their keys."""
        waiting = self._waiting(request)
        for key in waiting.keys:
            tracked = self._tracker.records[key]
            self._tracker.recorder.give_up(tracked)
            error = tracked.exception or TaskTimeoutError(f"{tracked.label} was given up")
            self._tracker.failures.fail(tracked, error)
        return waiting

    def _waiting(self, request: TaskKeys) -> TaskKeys:
        return TaskKeys(tuple(key for key in request.keys if self._is_waiting(key)))

    def _is_waiting(self, key: Any) -> bool:
        ts = self._scheduler.tasks.get(key)
        return self._tracker.parked.is_timed(key) and ts is not None and ts.state == "no-worker"

    # --- single tasks ----------------------------------------------------------------

    def resume_tasks(self, request: TaskKeys) -> TaskKeys:
        """Let paused tasks continue; returns their keys."""
        return TaskKeys(tuple(self._tracker.breakers.resume(request.keys)))

    def cancel_tasks(self, request: TaskKeys) -> TaskKeys:
        """Cancel those of the tasks that are not done; returns their keys.

        Whoever wants them, also a kernel that is gone.
        """
        states = self._tracker.recorder.ledger.columns["state"]
        records = self._tracker.records
        to_cancel = tuple(
            key
            for key in request.keys
            if key in records and not TaskState(states[records[key].row]).is_final
        )
        self._tracker.leases.cancel(to_cancel, "a person cancelled it")
        return TaskKeys(to_cancel)

    def call(self, request: CallRequest) -> CallReply | None:
        """What a task calls, as bytes that nobody here opens.

        None where it is forgotten, or is Dask's own and not a call of ours.
        """
        key = request.key
        tracked, ts = self._tracker.records.get(key), self._scheduler.tasks.get(key)
        if tracked is None or tracked.is_native or ts is None or ts.run_spec is None:
            return None
        spec: Any = ts.run_spec
        (call,) = (part for part in spec.args if isinstance(part, Call))
        return CallReply(
            label=tracked.label,
            call=pickle.dumps(call),
            inputs=tuple(part.target for part in spec.args if isinstance(part, Alias)),
            is_async=spec.func is run_async_attempt,
            idempotent=tracked.terms.idempotent,
            timeout_s=tracked.terms.timeout_s,
        )

    # --- whole batches ---------------------------------------------------------------

    def resume_batches(self, request: ResumeRequest) -> TaskCount:
        """Let the paused tasks of these batches go on; returns how many."""
        paused = self._unfinished(request.batches, only_paused=True)
        return TaskCount(len(self._tracker.breakers.resume(paused)))

    def cancel_batches(self, request: CancelRequest) -> TaskCount:
        """Cancel what is not done of these batches; returns how many.

        Whoever wants the tasks, also a kernel that is gone. What is done stays.
        """
        keys = self._unfinished(request.batches, only_paused=request.only_paused)
        self._tracker.leases.cancel(keys, "a person cancelled it")
        return TaskCount(len(keys))

    def _unfinished(self, batches: Collection[str] | None, *, only_paused: bool) -> list[Any]:
        tracker = self._tracker
        states = tracker.recorder.ledger.columns["state"]
        return [
            key
            for key, tracked in tracker.records.items()
            if (batches is None or tracked.batch.name in batches)
            and not TaskState(states[tracked.row]).is_final
            and (key in tracker.breakers or not only_paused)
        ]

    # --- tell ------------------------------------------------------------------------

    async def ledger_delta(self, request: LedgerRequest) -> Delta | None:
        """What changed since a sequence number; waits for a change, None when there is none.

        What a client answered itself before it asks is in it: that came another way, and may
        be later.
        """
        ledger, answered = self._tracker.recorder.ledger, self._tracker.answered
        patience = time() + HEARD_WITHIN_S
        while answered[request.client] < request.reports_sent and time() < patience:
            await asyncio.sleep(0.01)
        since = request.since if request.ledger_id == ledger.ledger_id else 0
        deadline = time() + request.wait_s
        while not ledger.has_changed(since):
            if time() >= deadline:
                return None
            await asyncio.sleep(DELTA_INTERVAL_S)
        return ledger.delta(since)

    def stop(self, request: EmptyMessage) -> None:
        """End the host."""
        self._tracker.stop()

    async def flush(self, request: EmptyMessage) -> None:
        """Bring the journal on disk up to date."""
        self._tracker.recorder.flush()

    def status(self, request: EmptyMessage) -> StatusReply:
        """Workers, counts and notices."""
        recorder = self._tracker.recorder
        return StatusReply(
            counts=recorder.ledger.count(),
            notices=tuple(self._tracker.notices),
            pauses=tuple(self._tracker.breakers.pauses()),
            jobs=tuple(self._tracker.jobs()),
            host_job=self._tracker.host_job(),
            workers=tuple(
                WorkerStatus(
                    name=recorder.worker_name(ws.address),
                    address=ws.address,
                    component=_component(ws.resources),
                    state="busy" if ws.processing else "idle",
                    threads=ws.nthreads,
                    memory_bytes=ws.metrics.get("memory", 0),
                    memory_limit_bytes=ws.memory_limit,
                    host=ws.host,
                )
                for ws in self._scheduler.workers.values()
            ),
        )


def _component(resources: Iterable[str]) -> str:
    """Whose worker it is, where a component has workers of its own."""
    found = [name for name in resources if name.startswith(COMPONENT_PREFIX)]
    return found[0].removeprefix(COMPONENT_PREFIX) if found else ""
