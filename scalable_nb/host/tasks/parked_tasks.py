"""Parks tasks between two attempts, outside every worker.

A parked task requires a resource that no worker offers, so the scheduler itself keeps it
in ``no-worker``: no slot, no thread, nothing polls. The restriction may only be set once
the task has left ``processing``, else the scheduler's count of resources breaks
(verified with distributed 2026.8.0).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from distributed.scheduler import TaskState

from scalable_nb.dask_adapter.scheduler import SchedulerAdapter
from scalable_nb.host.tasks.task import TrackedTask

_OFFERED_NOWHERE: Final = {"scalable-parked": 1}


@dataclass(slots=True)
class _Parked:
    timer: asyncio.TimerHandle | None = None
    own_resources: dict[str, float] | None = None
    is_restricted: bool = False


class ParkedTasks:
    """The parked tasks of one scheduler.

    Parameters
    ----------
    adapter : SchedulerAdapter
    on_unpark : callable
        Called with a task just before it becomes runnable again.
    """

    def __init__(self, adapter: SchedulerAdapter, on_unpark: Callable[[TrackedTask], None]) -> None:
        self._adapter = adapter
        self._on_unpark = on_unpark
        self._parked: dict[Any, _Parked] = {}
        self._is_nudged = False

    def __len__(self) -> int:
        return len(self._parked)

    def is_timed(self, key: Any) -> bool:
        """Return whether a task is parked for a delay, not until its outcome is known."""
        parked = self._parked.get(key)
        return parked is not None and parked.timer is not None

    def park(self, tracked: TrackedTask, delay_s: float | None) -> None:
        """Park a task that is about to leave its worker, or change how long it is parked.

        ``delay_s=None`` parks it until `unpark`.
        """
        tracked.is_parked = True
        parked = self._parked.setdefault(tracked.key, _Parked())
        if parked.timer is not None:
            parked.timer.cancel()
        parked.timer = None
        if delay_s is not None:
            parked.timer = self._adapter.call_later(delay_s, self.unpark, tracked)

    def unpark(self, tracked: TrackedTask) -> None:
        """Run a parked task again; does nothing if it is not parked."""
        ts = self._remove(tracked)
        if ts is None:
            return
        self._on_unpark(tracked)
        if ts.state == "no-worker":
            # Through `released`, not straight to a worker: so it queues like any other.
            self._adapter.release(tracked.key, "unpark")

    def drop(self, tracked: TrackedTask) -> None:
        """Forget a parked task without running it."""
        if tracked.is_parked:
            self._remove(tracked)

    def on_transition(self, tracked: TrackedTask, finish: str) -> None:
        """Follow a transition of a parked task."""
        if finish == "no-worker":
            self._nudge_queue()
        elif finish in ("released", "waiting"):
            self.restrict(tracked)

    def restrict(self, tracked: TrackedTask) -> None:
        """Keep a parked task from every worker; only while it is not on one."""
        parked = self._parked[tracked.key]
        if not parked.is_restricted:
            own = parked.own_resources = self._adapter.resources_of(tracked.key)
            self._adapter.require_resources(tracked.key, {**(own or {}), **_OFFERED_NOWHERE})
            parked.is_restricted = True

    def _remove(self, tracked: TrackedTask) -> TaskState | None:
        """Remove a task; return None if it was not parked or Dask has forgotten it."""
        tracked.is_parked = False
        parked = self._parked.pop(tracked.key, None)
        if parked is None:
            return None
        if parked.timer is not None:
            parked.timer.cancel()
        ts = self._adapter.tasks.get(tracked.key)
        if ts is not None and parked.is_restricted:
            self._adapter.require_resources(tracked.key, parked.own_resources)
        return ts

    def _nudge_queue(self) -> None:
        # A task that goes to no-worker frees its slot without the scheduler noticing:
        # queued tasks would wait for the backoff although workers are idle.
        if not self._is_nudged:
            self._is_nudged = True
            self._adapter.call_soon(self._fill_slots)

    def _fill_slots(self) -> None:
        self._is_nudged = False
        self._adapter.fill_slots()
