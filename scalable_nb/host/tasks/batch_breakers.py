"""Pauses a batch that only ever fails in the same way, until a person says what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from time import time
from typing import TYPE_CHECKING, Any, Final

from scalable_nb.faults.circuit_breaker import CircuitBreaker, Pause, pause_text
from scalable_nb.host.tasks.task import FailedAttempt, TrackedTask
from scalable_nb.telemetry.rows import TaskState

if TYPE_CHECKING:
    from scalable_nb.host.tasks.tracker import TaskTracker

_MESSAGE_CHARS: Final = 200


class BatchBreakers:
    """One brake per batch.

    Parameters
    ----------
    tracker : TaskTracker
    limit : int
        Equal failures in a row that stop a batch; 0: never.
    """

    def __init__(self, tracker: TaskTracker, limit: int) -> None:
        self._tracker = tracker
        self._limit = limit
        self._paused: set[Any] = set()
        self._causes: dict[str, tuple[str, str]] = {}  # batch -> class and message of the failure

    def __contains__(self, key: Any) -> bool:
        return key in self._paused

    def on_success(self, tracked: TrackedTask) -> None:
        """A task of a batch succeeded."""
        if tracked.batch.breaker is not None:
            tracked.batch.breaker.succeed()

    def on_failure(self, tracked: TrackedTask, failure: FailedAttempt) -> None:
        """A task failed for good; pauses the rest of its batch where that is due."""
        batch = tracked.batch
        if not batch.name:
            return  # a single submit has no rest
        if batch.breaker is None:
            batch.breaker = CircuitBreaker(self._limit)
        if not batch.breaker.fail(failure.fingerprint):
            return
        paused = [r for r in self._tracker.records.values() if r.batch is batch]
        if sum(self._pause(r) for r in paused):
            self._causes[batch.name] = failure.failure_class, failure.message[:_MESSAGE_CHARS]
            (pause,) = [pause for pause in self.pauses() if pause["batch"] == batch.name]
            self._tracker.notify(
                f"{pause_text(pause)}. `client.resume(futures)` goes on, `client.cancel(futures)` "
                "ends them; `%scalable resume` and `%scalable cancel --paused` do the same."
            )

    def pauses(self) -> list[Pause]:
        """The batches that are paused, and why."""
        counts = Counter(self._tracker.records[key].batch.name for key in self._paused)
        return [
            Pause(
                batch=name,
                count=count,
                limit=self._limit,
                failure_class=self._causes[name][0],
                message=self._causes[name][1],
            )
            for name, count in sorted(counts.items())
        ]

    def resume(self, keys: Iterable[Any]) -> list[Any]:
        """Let paused tasks go on, and never stop their batches again; returns their keys."""
        chosen = [key for key in keys if key in self._paused]
        for key in chosen:
            tracked = self._tracker.records[key]
            self._paused.discard(key)
            if tracked.batch.breaker is not None:
                tracked.batch.breaker.release()
            self._tracker.parked.unpark(key)
        return chosen

    def forget(self, key: Any) -> None:
        """The task is gone."""
        self._paused.discard(key)

    def _pause(self, tracked: TrackedTask) -> bool:
        """Hold a task that is not on a worker; says whether it is paused now."""
        scheduler, parked, key = self._tracker.scheduler, self._tracker.parked, tracked.key
        state = scheduler.tasks[key].state
        if state not in ("waiting", "queued", "no-worker"):
            return False
        self._paused.add(key)
        parked.park(key, None)
        parked.restrict(key)
        self._tracker.recorder.ledger.set_state(tracked.row, TaskState.PAUSED)
        if state != "waiting":
            scheduler.transitions({key: "released"}, f"scalable-pause-{time()}")
        return True
