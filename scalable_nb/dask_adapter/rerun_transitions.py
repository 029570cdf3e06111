"""Failed tasks run again, and with them what had failed because of them.

Dask's own retry recommends all failed dependents of a task at once, in any order. One that has
another failed input is then refused by Dask's own check, or waits for it indefinitely (distributed
2026.8.0: `transition_released_waiting`). Here inputs go before what takes them.
"""

from __future__ import annotations

from collections.abc import Iterable
from graphlib import TopologicalSorter
from time import time
from typing import Any

from distributed.scheduler import Scheduler, TaskState


def rerun(scheduler: Scheduler, keys: Iterable[Any]) -> None:
    """Run failed tasks again.

    Parameters
    ----------
    scheduler : distributed.Scheduler
    keys : iterable
        Of failed tasks; their failed inputs are among them. Dependents recover too, but for
        those that another failed input keeps from running.
    """
    recovering = _with_dependents({scheduler.tasks[key] for key in keys})
    inputs = {ts: _failed(ts.dependencies) & recovering for ts in recovering}
    stimulus = f"scalable-rerun-{time()}"
    following: dict[Any, Any] = {}
    for ts in TopologicalSorter(inputs).static_order():
        recommended = scheduler.transition(ts.key, "waiting", stimulus)
        # Of failed dependents, those that recover have their turn, and the others none.
        following |= {key: to for key, to in recommended.items() if not _is_failed(scheduler, key)}
    scheduler.transitions(following, stimulus)


def _is_failed(scheduler: Scheduler, key: Any) -> bool:
    return scheduler.tasks[key].state == "erred"


def _with_dependents(recovering: set[TaskState]) -> set[TaskState]:
    """Add the failed dependents that have no other failed input."""
    stack = list(recovering)
    while stack:
        for dependent in _failed(stack.pop().dependents):
            if dependent not in recovering and not _failed(dependent.dependencies) - recovering:
                recovering.add(dependent)
                stack.append(dependent)
    return recovering


def _failed(tasks: Iterable[TaskState] | None) -> set[TaskState]:
    return {ts for ts in tasks or () if ts.state == "erred"}
