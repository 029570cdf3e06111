"""Which failed tasks recover when others run again.

Dask sends every failed dependent of a task that runs again back to ``waiting``. One that has
another failed input could never leave it, and Dask's own check stops half-way through
(distributed 2026.8.0: an assertion in `transition_released_waiting`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from distributed.scheduler import Scheduler, TaskState


@contextmanager
def without_blocked_dependents(scheduler: Scheduler, keys: Iterable[Any]) -> Iterator[None]:
    """Leave dependents alone that another failed input keeps from running.

    Parameters
    ----------
    scheduler : distributed.Scheduler
    keys : iterable
        Of all failed tasks that run again within the block.
    """
    blocked = _blocked({scheduler.tasks[key] for key in keys})
    for task, dependent in blocked:
        assert task.dependents is not None
        task.dependents.discard(dependent)
    try:
        yield
    finally:
        for task, dependent in blocked:
            assert task.dependents is not None
            task.dependents.add(dependent)


def _blocked(recovering: set[TaskState]) -> list[tuple[TaskState, TaskState]]:
    """Pairs of a task that recovers and a failed dependent that does not."""
    stack = list(recovering)
    while stack:
        for dependent in _failed(stack.pop().dependents):
            if dependent not in recovering and not _failed(dependent.dependencies) - recovering:
                recovering.add(dependent)
                stack.append(dependent)
    return [
        (task, dependent)
        for task in recovering
        for dependent in _failed(task.dependents) - recovering
    ]


def _failed(tasks: Iterable[TaskState] | None) -> set[TaskState]:
    return {ts for ts in tasks or () if ts.state == "erred"}
