"""Workers that are to go: they take no more, finish what they execute, and end.

Dask's own ways of ending a worker (`retire_workers`, ``--lifetime``) keep its results but do not
wait for the task that it is executing (distributed 2026.8.0).
"""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalable_nb.host.conductor import Conductor


class Departures:
    """Lets workers finish before they end.

    Parameters
    ----------
    conductor : Conductor
    """

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor
        self._scheduler = conductor.scheduler

    def begin(self, worker: str) -> None:
        """No more tasks for this worker; what only stands in line there goes elsewhere.

        To be called again now and then: a worker that was short of memory for a while says so
        itself when it takes tasks again.
        """
        stimulus = f"scalable-departure-{time()}"
        self._scheduler.handle_worker_status_change("paused", worker, stimulus)
        keys = [key for key in self._conductor.seats.standing(worker) if self._may_move(key)]
        if keys:
            self._scheduler.transitions(dict.fromkeys(keys, "released"), stimulus)

    def is_idle(self, worker: str) -> bool:
        """Whether a worker has nothing left to do."""
        ws = self._scheduler.workers.get(worker)
        return ws is None or not ws.processing

    def call_off(self, worker: str) -> None:
        """The worker stays after all."""
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

    def _may_move(self, key: object) -> bool:
        record = self._conductor.records.get(key)
        ts = self._scheduler.tasks.get(key)
        is_there = ts is not None and ts.state == "processing"
        return is_there and record is not None and record.terms.idempotent
