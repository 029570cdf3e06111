"""Workers that are to go: they take no more, finish what they execute, and end.

Dask's own ways of ending a worker (`retire_workers`, ``--lifetime``) keep its results but do not
wait for the task that it is executing (distributed 2026.8.0).
"""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from scalable_nb.host.tasks.tracker import TaskTracker

#: States of a task on a worker that lets go of it (distributed 2026.8.0, `stealing`).
_GIVEN_UP: Final = ("ready", "constrained", "waiting")


class GracefulRetirement:
    """Lets workers finish before they end.

    Parameters
    ----------
    tracker : TaskTracker
    """

    def __init__(self, tracker: TaskTracker) -> None:
        self._tracker = tracker
        self._scheduler = tracker.scheduler
        self._asked: set[tuple[str, Any]] = set()
        handlers = self._scheduler.stream_handlers
        self._on_steal_response = handlers["steal-response"]
        handlers["steal-response"] = self._on_answer
        self._on_status_change = handlers["worker-status-change"]
        handlers["worker-status-change"] = self._on_status
        self._leaving: set[str] = set()  # by what Dask knows a worker process

    def begin(self, worker: str) -> None:
        """No more tasks for this worker; what only stands in line there goes elsewhere.

        To be called again now and then: a task may have been on its way to it.
        """
        if worker in self._scheduler.workers:
            self._leaving.add(self._scheduler.workers[worker].server_id)
        stimulus = f"scalable-departure-{time()}"
        self._scheduler.handle_worker_status_change("paused", worker, stimulus)
        for key in self._tracker.executing.ready(worker):
            if (worker, key) not in self._asked and worker in self._scheduler.stream_comms:
                self._asked.add((worker, key))
                # Only the worker knows whether it has begun: it gives a task up that it has not.
                request = {"op": "steal-request", "key": key, "stimulus_id": stimulus}
                self._scheduler.stream_comms[worker].send(request)

    def _on_answer(
        self, *, key: Any, state: str, stimulus_id: str, worker: str, **kwargs: Any
    ) -> None:
        if (worker, key) not in self._asked:
            self._on_steal_response(
                key=key, state=state, stimulus_id=stimulus_id, worker=worker, **kwargs
            )
            return
        self._asked.discard((worker, key))
        ts = self._scheduler.tasks.get(key)
        ws = ts.processing_on if ts is not None else None
        if state in _GIVEN_UP and ws is not None and ws.address == worker:
            self._scheduler.transitions({key: "released"}, stimulus_id)

    def _on_status(self, *, status: str, worker: str, stimulus_id: str, **kwargs: Any) -> None:
        # A worker that could not be retired is told to pause, finds that it has memory enough, and
        # says that it takes tasks again.
        ws = self._scheduler.workers.get(worker)
        if status == "running" and ws is not None and ws.server_id in self._leaving:
            return
        self._on_status_change(status=status, worker=worker, stimulus_id=stimulus_id, **kwargs)

    def is_idle(self, worker: str) -> bool:
        """Whether a worker has nothing left to do."""
        ws = self._scheduler.workers.get(worker)
        return ws is None or not ws.processing

    def call_off(self, worker: str) -> None:
        """The worker stays after all."""
        if worker in self._scheduler.workers:
            self._leaving.discard(self._scheduler.workers[worker].server_id)
        stimulus = f"scalable-departure-{time()}"
        change = {"op": "worker-status-change", "status": "running", "stimulus_id": stimulus}
        if worker in self._scheduler.stream_comms:
            self._scheduler.stream_comms[worker].send(change)
        self._scheduler.handle_worker_status_change("running", worker, stimulus)

    async def end(self, workers: list[str]) -> bool:
        """End idle workers, their results moved to others first.

        Returns
        -------
        bool
            Whether they have ended; not where no other worker could take a result.
        """
        present = [worker for worker in workers if worker in self._scheduler.workers]
        if not present:
            return True
        ended = await self._scheduler.retire_workers(workers=present, close_workers=True)
        return set(present) <= set(ended)
