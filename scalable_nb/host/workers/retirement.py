"""Retire workers gracefully: they take no more tasks, finish the running ones, and stop.

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

#: Part of the stimulus ids in the log of the scheduler.
_CAUSE: Final = "retirement"

#: States of a task that its worker returns on request (distributed 2026.8.0, `stealing`).
_GIVEN_UP: Final = ("ready", "constrained", "waiting")


class GracefulRetirement:
    """Lets workers finish their tasks before they stop.

    Parameters
    ----------
    adapter : SchedulerAdapter
    executing : ExecutingTasks
    losses : WorkerLosses
    stop : asyncio.Event
        Set when the host is to stop.
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

        To be called again from time to time: a task may have been on its way to the worker.
        """
        if worker in self._adapter.workers:
            self._leaving.add(self._adapter.workers[worker].server_id)
        self._adapter.pause_worker(worker, _CAUSE)
        for key in self._executing.ready(worker):
            # Only the worker knows whether a task has started: it returns the others.
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
        # A paused worker that has enough memory reports that it takes tasks again.
        ws = self._adapter.workers.get(worker)
        if status == "running" and ws is not None and ws.server_id in self._leaving:
            return
        self._on_status_change(status=status, worker=worker, stimulus_id=stimulus_id, **kwargs)

    def is_idle(self, worker: str) -> bool:
        """Return whether a worker has no tasks."""
        ws = self._adapter.workers.get(worker)
        return ws is None or not ws.processing

    def call_off(self, worker: str) -> None:
        """Let a worker stay and take tasks again."""
        if worker in self._adapter.workers:
            self._leaving.discard(self._adapter.workers[worker].server_id)
        self._adapter.resume_worker(worker, _CAUSE)

    async def end(self, workers: list[str]) -> bool:
        """Stop idle workers after moving their results to others.

        Returns
        -------
        bool
            Whether they have stopped; False if no other worker could take a result.
        """
        present = [worker for worker in workers if worker in self._adapter.workers]
        if not present:
            return True
        return set(present) <= await self._adapter.retire(present)

    # --- jobs that the batch system stops -----------------------------------------------

    def worker_leaves(self, message: WorkerExited) -> LeaveReply:
        """Retire a worker whose job is about to be stopped; reply whether its tasks may finish."""
        if self._stop.is_set():
            return LeaveReply(may_finish=False)
        # The tasks that still run when the job ends are known from now on.
        self._losses.report(message)
        self.begin(message.worker)
        return LeaveReply(may_finish=True)

    async def worker_hands_over(self, message: WorkerMessage) -> None:
        """Stop a worker that has finished its tasks and whose job is about to be stopped."""
        await self.end([message.worker])
