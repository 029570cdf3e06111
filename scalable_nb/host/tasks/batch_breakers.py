"""Pauses a batch of identical failures until the user resumes or cancels it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from scalable_nb.dask_adapter.scheduler import SchedulerAdapter
from scalable_nb.faults.circuit_breaker import CircuitBreaker, Pause, pause_text
from scalable_nb.host.notices import Notices
from scalable_nb.host.tasks.parked_tasks import ParkedTasks
from scalable_nb.host.tasks.task import FailedAttempt, TrackedTask
from scalable_nb.host.tasks.task_registry import TaskRegistry
from scalable_nb.telemetry.ledger import Ledger
from scalable_nb.telemetry.rows import TaskState

_MESSAGE_CHARS: Final = 200


class BatchBreakers:
    """One circuit breaker per batch.

    Parameters
    ----------
    registry : TaskRegistry
    ledger : Ledger
    adapter : SchedulerAdapter
    parked : ParkedTasks
    notices : Notices
    limit : int
        Identical failures in a row that pause a batch; 0: never.
    """

    def __init__(
        self,
        registry: TaskRegistry,
        ledger: Ledger,
        adapter: SchedulerAdapter,
        parked: ParkedTasks,
        notices: Notices,
        limit: int,
    ) -> None:
        self._registry = registry
        self._ledger = ledger
        self._adapter = adapter
        self._parked = parked
        self._notices = notices
        self._limit = limit
        self._paused: dict[Any, TrackedTask] = {}
        self._causes: dict[str, tuple[str, str]] = {}  # batch -> class and message of the failure

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
            batch.breaker = CircuitBreaker(self._limit, batch.size)
        if not batch.breaker.fail(failure.fingerprint):
            return
        siblings = [other for other in self._registry.values() if other.batch is batch]
        if sum(map(self._pause, siblings)):
            self._causes[batch.name] = failure.failure_class, failure.message[:_MESSAGE_CHARS]
            (pause,) = [pause for pause in self.pauses() if pause["batch"] == batch.name]
            self._notices.notify(
                f"{pause_text(pause)}. `client.resume(futures)` goes on, `client.cancel(futures)` "
                "ends them; `%scalable resume` and `%scalable cancel --paused` do the same."
            )

    def pauses(self) -> list[Pause]:
        """The batches that are paused, and why."""
        counts = Counter(tracked.batch.name for tracked in self._paused.values())
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
            tracked = self._registry[key]
            self.forget(tracked)
            if tracked.batch.breaker is not None:
                tracked.batch.breaker.release()
            self._parked.unpark(tracked)
        return chosen

    def forget(self, tracked: TrackedTask) -> None:
        """Note that a task no longer exists, or continues."""
        if tracked.is_paused:
            tracked.is_paused = False
            del self._paused[tracked.key]

    def _pause(self, tracked: TrackedTask) -> bool:
        """Hold a task that is not on a worker; says whether it is paused now."""
        key = tracked.key
        state = self._adapter.tasks[key].state
        if state not in ("waiting", "queued", "no-worker"):
            return False
        tracked.is_paused = True
        self._paused[key] = tracked
        self._parked.park(tracked, None)
        self._parked.restrict(tracked)
        self._ledger.set_state(tracked.row, TaskState.PAUSED)
        if state != "waiting":
            self._adapter.release(key, "pause")
        return True
