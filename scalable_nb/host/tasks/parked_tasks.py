"""Parks tasks between two attempts, outside every worker.

A held task is given a resource that no worker offers, so the scheduler itself keeps it
in ``no-worker``: no slot, no thread, nothing polls. The restriction may only be set once
the task has left ``processing``, else the scheduler's account of resources breaks
(verified with distributed 2026.8.0).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import time
from typing import Any, Final

from distributed.scheduler import Scheduler, TaskState

_NOWHERE: Final = {"scalable-held": 1}


@dataclass(slots=True)
class _Parked:
    timer: asyncio.TimerHandle | None = None
    own_resources: dict[str, float] | None = None
    is_restricted: bool = False


class ParkedTasks:
    """The set of held tasks of one scheduler.

    Parameters
    ----------
    scheduler : distributed.Scheduler
    on_unpark : callable
        Called with the key just before a task becomes runnable again.
    """

    def __init__(self, scheduler: Scheduler, on_unpark: Callable[[Any], None]) -> None:
        self._scheduler = scheduler
        self._on_unpark = on_unpark
        self._parked: dict[Any, _Parked] = {}
        self._is_nudged = False

    def __contains__(self, key: Any) -> bool:
        return key in self._parked

    def __len__(self) -> int:
        return len(self._parked)

    def is_timed(self, key: Any) -> bool:
        """Whether a task waits for its time, and not for a word about what happened to it."""
        parked = self._parked.get(key)
        return parked is not None and parked.timer is not None

    def park(self, key: Any, delay_s: float | None) -> None:
        """Hold a task that is about to leave its worker, or change how long it is held.

        ``delay_s=None`` holds it until `unpark`.
        """
        parked = self._parked.setdefault(key, _Parked())
        if parked.timer is not None:
            parked.timer.cancel()
        parked.timer = None
        if delay_s is not None:
            loop = self._scheduler.loop.asyncio_loop  # type: ignore[attr-defined]
            parked.timer = loop.call_later(delay_s, self.unpark, key)

    def unpark(self, key: Any) -> None:
        """Let a held task run again; without effect for one that is not held."""
        parked = self._parked.pop(key, None)
        if parked is None:
            return
        if parked.timer is not None:
            parked.timer.cancel()
        ts = self._scheduler.tasks.get(key)
        if ts is None:
            return
        self._unrestrict(parked, ts)
        self._on_unpark(key)
        if ts.state == "no-worker":
            # Through `released`, not straight to a worker: so it queues like any other.
            self._scheduler.transitions({key: "released"}, f"scalable-wake-{time()}")

    def drop(self, key: Any) -> None:
        """Forget a held task without running it."""
        parked = self._parked.pop(key, None)
        if parked is None:
            return
        if parked.timer is not None:
            parked.timer.cancel()
        ts = self._scheduler.tasks.get(key)
        if ts is not None:
            self._unrestrict(parked, ts)

    def on_transition(self, key: Any, finish: str) -> None:
        """To be called for each transition of a held task."""
        if finish == "no-worker":
            self._nudge_queue()
        elif finish in ("released", "waiting"):
            self.restrict(key)

    def restrict(self, key: Any) -> None:
        """Keep a held task from every worker; only while it is not on one."""
        parked = self._parked[key]
        if not parked.is_restricted:
            ts = self._scheduler.tasks[key]
            parked.own_resources = ts.resource_restrictions
            ts.resource_restrictions = {**(parked.own_resources or {}), **_NOWHERE}
            parked.is_restricted = True

    def _unrestrict(self, parked: _Parked, ts: TaskState) -> None:
        if parked.is_restricted:
            ts.resource_restrictions = parked.own_resources

    def _nudge_queue(self) -> None:
        # A task that goes to no-worker frees its slot without the scheduler noticing:
        # queued tasks would wait for the backoff beside idle workers.
        if not self._is_nudged:
            self._is_nudged = True
            self._scheduler.loop.add_callback(self._fill_slots)

    def _fill_slots(self) -> None:
        self._is_nudged = False
        self._scheduler.stimulus_queue_slots_maybe_opened(stimulus_id=f"scalable-hold-{time()}")
