"""Sends a task that ran out of memory to a worker that has more."""

from __future__ import annotations

from dask.utils import format_bytes

from scalable_nb.dask_adapter.scheduler import SchedulerAdapter
from scalable_nb.host.notices import Notices
from scalable_nb.host.tasks.placement import TaskPlacement
from scalable_nb.host.tasks.task import FailedAttempt, TrackedTask
from scalable_nb.host.workers.demand import DesiredByKind, DesiredWorkers, Limits
from scalable_nb.targets.fleet import Fleet, WorkerKind

#: Workers of a kind that was made for tasks which need more memory.
_MAX_WORKERS = 4


class LargerWorkers:
    """Finds, or makes, the kind of worker that a task needs after an out-of-memory.

    Parameters
    ----------
    fleet : Fleet
    adapter : SchedulerAdapter
    placement : TaskPlacement
    desired : DesiredByKind
        Gets the new kinds.
    notices : Notices
    """

    def __init__(
        self,
        fleet: Fleet,
        adapter: SchedulerAdapter,
        placement: TaskPlacement,
        desired: DesiredByKind,
        notices: Notices,
    ) -> None:
        self._fleet = fleet
        self._adapter = adapter
        self._placement = placement
        self._desired = desired
        self._notices = notices
        self._is_reported = False

    def consider(self, tracked: TrackedTask, failure: FailedAttempt) -> None:
        """An attempt failed and the task runs again: perhaps elsewhere."""
        escalation = tracked.terms.escalation
        if escalation is None or failure.category != "resource":
            return
        worker = self._adapter.workers.get(failure.worker)
        had = failure.memory_limit_bytes or (worker.memory_limit if worker else None)
        wanted = escalation.memory_after(had) if had else None
        if wanted is None:
            return
        kind = self._kind(tracked.batch.component, wanted)
        if kind is not None:
            self._placement.send(tracked, kind.name)
        elif not self._is_reported:
            self._is_reported = True
            self._notices.notify(
                f"{tracked.label} is to have {format_bytes(wanted)}, but all workers of this "
                "target share the memory of one machine: it runs again with what it had."
            )

    def _kind(self, component: str, memory_bytes: int) -> WorkerKind | None:
        kinds = [kind for kind in self._fleet.kinds.values() if kind.memory_bytes is not None]
        # Almost as much is enough: sizes are rounded on their way through the batch system.
        fitting = [kind for kind in kinds if (kind.memory_bytes or 0) >= memory_bytes * 0.98]
        if fitting:
            return min(fitting, key=lambda kind: kind.memory_bytes or 0)
        base = self._fleet.kinds.get(component) or next(iter(self._fleet.kinds.values()))
        kind = self._fleet.enlarged(base, memory_bytes)
        if kind is not None:
            self._fleet.add_kind(kind)
            self._desired.set(kind.name, DesiredWorkers(1, Limits(0, _MAX_WORKERS)))
            self._notices.notify(
                f"a job with {format_bytes(memory_bytes)} is asked for: a task of "
                f"{base.name or 'the session'} ran out of memory."
            )
        return kind
