"""Restrict tasks to a kind of worker.

The workers of a component offer a Dask resource with its name, and a task of the component
requires it. That holds for workers that come later, too. If there is only one kind of worker,
nothing is required: the scheduler does not queue a task with a restriction but sends it to a
worker immediately (distributed 2026.8.0).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from scalable_nb.dask_adapter.scheduler import SchedulerAdapter
from scalable_nb.host.tasks.task import TrackedTask
from scalable_nb.host.tasks.task_registry import TaskRegistry
from scalable_nb.protocol.operations import COMPONENT_PREFIX, demand
from scalable_nb.telemetry.ledger import Ledger
from scalable_nb.telemetry.rows import TaskState


class TaskPlacement:
    """Sends tasks to the workers of their component, or of its fallback.

    Parameters
    ----------
    registry : TaskRegistry
    ledger : Ledger
    adapter : SchedulerAdapter
    kinds : collection of str
        Components with separate workers; empty if all share them.
    """

    def __init__(
        self,
        registry: TaskRegistry,
        ledger: Ledger,
        adapter: SchedulerAdapter,
        kinds: Collection[str],
    ) -> None:
        self._registry = registry
        self._ledger = ledger
        self._adapter = adapter
        self._kinds = frozenset(kinds) if len(kinds) > 1 else frozenset()
        self._instead: dict[str, str] = {}
        self._own: dict[Any, str] = {}

    def kind_of(self, component: str) -> str:
        """Return the component whose workers take the tasks of this one."""
        return self._instead.get(component, component)

    def restrict(self, keys: Iterable[Any]) -> None:
        """Bind tasks to their kind of worker, before they become runnable."""
        if not self._kinds:
            return
        for key in keys:
            tracked = self._registry.get(key)
            if tracked is not None:
                self._bind(key, self._own.get(key) or self.kind_of(tracked.batch.component))

    def redirect(self, component: str, fallback: str) -> int:
        """Send the tasks of a component to the workers of another one from now on.

        Returns
        -------
        int
            How many tasks waited for a worker.
        """
        self._instead = {
            name: fallback if kind == component else kind for name, kind in self._instead.items()
        } | {component: fallback}
        waiting = [
            tracked
            for key, tracked in self._registry.items()
            if tracked.batch.component == component and key not in self._own
        ]
        return sum(self._move(tracked, fallback) for tracked in waiting)

    def send(self, tracked: TrackedTask, kind: str) -> None:
        """Bind one task to a separate kind, e.g. one with more memory."""
        self._own[tracked.key] = kind
        self._kinds |= {kind}
        self._move(tracked, kind)

    def rerouted(self) -> Iterator[tuple[str, str]]:
        """Yield component and kind of each runnable task that was bound to a separate kind."""
        states = self._ledger.columns["state"]
        for key, kind in self._own.items():
            tracked = self._registry.get(key)
            if tracked is not None and TaskState(states[tracked.row]).is_runnable:
                yield tracked.batch.component, kind

    def forget(self, key: Any) -> None:
        """Drop the placement of a task that the scheduler forgot."""
        self._own.pop(key, None)

    def _move(self, tracked: TrackedTask, kind: str) -> bool:
        key = tracked.key
        ts = self._adapter.tasks.get(key)
        if ts is None:
            return False
        self._bind(key, kind)
        if ts.state != "no-worker" or tracked.is_parked:
            return False
        self._adapter.release(key, "placement")
        return True

    def _bind(self, key: Any, kind: str) -> None:
        ts = self._adapter.tasks.get(key)
        if ts is None or kind not in self._kinds:
            return
        if ts.state == "processing":
            return  # the scheduler's account of resources would break; it runs where it is
        own = self._adapter.resources_of(key) or {}
        others = {name: n for name, n in own.items() if not name.startswith(COMPONENT_PREFIX)}
        self._adapter.require_resources(key, {**others, **demand(kind)})
