"""Workers that are to go: they take no more, finish what they execute, and end.

Dask's own ways of ending a worker (`retire_workers`, ``--lifetime``) keep its results but do not
wait for the task that it is executing (distributed 2026.8.0).
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from scalable_nb.dask_adapter.scheduler import (
    STEAL_RESPONSE,
    WORKER_STATUS_CHANGE,
    SchedulerAdapter,
)
from scalable_nb.host.tasks.task_registry import ExecutingTasks
from scalable_nb.host.tasks.worker_losses import WorkerLosses
from scalable_nb.protocol.messages import LeaveReply, WorkerExited, WorkerMessage

#: In the identifiers of what the scheduler is made to do, for its log.
_CAUSE: Final = "retirement"

#: States of a task on a worker that lets go of it (distributed 2026.8.0, `stealing`).
_GIVEN_UP: Final = ("ready", "constrained", "waiting")


class GracefulRetirement:
    """Lets workers finish before they end.

    Parameters
    ----------
    adapter : SchedulerAdapter
    executing : ExecutingTasks
    losses : WorkerLosses
    stop : asyncio.Event
        Set when the host is to end.
    """

    def __init__(
        self,
        adapter: SchedulerAdapter,
        executing: ExecutingTasks,
        losses: WorkerLosses,
        stop: asyncio.Event,
    ) -> None:
        self._adapter = adapter
        self._executing = executing
        self._losses = losses
        self._stop = stop
        self._asked: set[tuple[str, Any]] = set()
        self._on_steal_response = adapter.replace_stream_handler(STEAL_RESPONSE, self._on_answer)
        self._on_status_change = adapter.replace_stream_handler(
            WORKER_STATUS_CHANGE, self._on_status
        )
        self._leaving: set[str] = set()  # by what Dask knows a worker process

    def begin(self, worker: str) -> None:
        """Send no more tasks to this worker; those that are only queued there go elsewhere.

        To be called again now and then: a task may have been on its way to it.
        """
        if worker in self._adapter.workers:
            self._leaving.add(self._adapter.workers[worker].server_id)
        self._adapter.pause_worker(worker, _CAUSE)
        for key in self._executing.ready(worker):
            # Only the worker knows whether it has begun: it gives a task up that it has not.
            if (worker, key) not in self._asked and self._adapter.request_return(
                worker, key, _CAUSE
            ):
                self._asked.add((worker, key))

    def _on_answer(
        self, *, key: Any, state: str, stimulus_id: str, worker: str, **kwargs: Any
    ) -> None:
        if (worker, key) not in self._asked:
            self._on_steal_response(
                key=key, state=state, stimulus_id=stimulus_id, worker=worker, **kwargs
            )
            return
        self._asked.discard((worker, key))
        ts = self._adapter.tasks.get(key)
        ws = ts.processing_on if ts is not None else None
        if state in _GIVEN_UP and ws is not None and ws.address == worker:
            self._adapter.release(key, _CAUSE)

    def _on_status(self, *, status: str, worker: str, stimulus_id: str, **kwargs: Any) -> None:
        # A worker that could not be retired is told to pause, finds that it has memory enough, and
        # says that it takes tasks again.
        ws = self._adapter.workers.get(worker)
        if status == "running" and ws is not None and ws.server_id in self._leaving:
            return
        self._on_status_change(status=status, worker=worker, stimulus_id=stimulus_id, **kwargs)

    def is_idle(self, worker: str) -> bool:
        """Whether a worker has nothing left to do."""
        ws = self._adapter.workers.get(worker)
        return ws is None or not ws.processing

    def call_off(self, worker: str) -> None:
        """The worker stays after all."""
        if worker in self._adapter.workers:
            self._leaving.discard(self._adapter.workers[worker].server_id)
        self._adapter.resume_worker(worker, _CAUSE)

    async def end(self, workers: list[str]) -> bool:
        """End idle workers, their results moved to others first.

        Returns
        -------
        bool
            Whether they have ended; not where no other worker could take a result.
        """
        present = [worker for worker in workers if worker in self._adapter.workers]
        if not present:
            return True
        return set(present) <= await self._adapter.retire(present)

    # --- jobs that the batch system ends ------------------------------------------------

    def worker_leaves(self, message: WorkerExited) -> LeaveReply:
        """The batch system ends a worker's job; says whether its tasks may finish."""
        if self._stop.is_set():
            return LeaveReply(may_finish=False)
        # What is still executing when the job ends is known from now on, whatever follows.
        self._losses.report(message)
        self.begin(message.worker)
        return LeaveReply(may_finish=True)

    async def worker_hands_over(self, message: WorkerMessage) -> None:
        """A worker whose job is ended by the batch system has nothing left to do but to go."""
        await self.end([message.worker])
