"""Pauses a batch that only ever fails in the same way, until a person says what to do."""

from __future__ import annotations

from collections.abc import Iterable
from time import time
from typing import TYPE_CHECKING, Any

from scalable_nb.faults.brake import Brake
from scalable_nb.host.book import TaskRecord
from scalable_nb.telemetry.records import TaskState

if TYPE_CHECKING:
    from scalable_nb.host.conductor import Conductor


class Brakes:
    """One brake per batch.

    Parameters
    ----------
    conductor : Conductor
    limit : int
        Equal failures in a row that stop a batch; 0: never.
    """

    def __init__(self, conductor: Conductor, limit: int) -> None:
        self._conductor = conductor
        self._limit = limit
        self._paused: set[Any] = set()

    def __contains__(self, key: Any) -> bool:
        return key in self._paused

    def on_success(self, record: TaskRecord) -> None:
        """A task of a batch succeeded."""
        if record.batch.brake is not None:
            record.batch.brake.succeed()

    def on_failure(self, record: TaskRecord, fingerprint: str, message: str) -> None:
        """A task failed for good; pauses the rest of its batch where that is due."""
        batch = record.batch
        if not batch.name:
            return  # a single submit has no rest
        if batch.brake is None:
            batch.brake = Brake(self._limit)
        if not batch.brake.fail(fingerprint):
            return
        paused = [r for r in self._conductor.records.values() if r.batch is batch]
        count = sum(self._pause(r) for r in paused)
        if count:
            self._conductor.notify(
                f"{count} tasks of {batch.name!r} are paused: the last {self._limit} that finished "
                f"all failed alike ({message[:200]}). `client.resume(futures)` goes on, "
                "`client.cancel(futures)` ends them."
            )

    def resume(self, keys: Iterable[Any]) -> list[Any]:
        """Let paused tasks go on, and never stop their batches again; returns their keys."""
        chosen = [key for key in keys if key in self._paused]
        for key in chosen:
            record = self._conductor.records[key]
            self._paused.discard(key)
            if record.batch.brake is not None:
                record.batch.brake.release()
            self._conductor.hold.wake(key)
        return chosen

    def forget(self, key: Any) -> None:
        """The task is gone."""
        self._paused.discard(key)

    def _pause(self, record: TaskRecord) -> bool:
        """Hold a task that is not on a worker; says whether it is paused now."""
        scheduler, hold, key = self._conductor.scheduler, self._conductor.hold, record.key
        state = scheduler.tasks[key].state
        if state not in ("waiting", "queued", "no-worker"):
            return False
        self._paused.add(key)
        hold.park(key, None)
        hold.restrict(key)
        self._conductor.book.ledger.set_state(record.row, TaskState.PAUSED)
        if state != "waiting":
            scheduler.transitions({key: "released"}, f"scalable-pause-{time()}")
        return True
