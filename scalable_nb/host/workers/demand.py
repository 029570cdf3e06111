"""How many tasks could run now, kind of worker by kind of worker."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import numpy as np

from scalable_nb.telemetry.rows import TaskState

if TYPE_CHECKING:
    from scalable_nb.host.tasks.tracker import Conductor

_RUNNABLE: Final = [state for state in TaskState if state.is_runnable]


def runnable_by_component(conductor: Conductor) -> Counter[str]:
    """Tasks that run or would run if there were a worker, by component (``""``: any).

    Those that wait for inputs, for their retry or for a person's word are not among them.
    """
    ledger = conductor.book.ledger
    state = np.frombuffer(ledger.columns["state"], dtype=np.uint8)
    component = np.frombuffer(ledger.columns["component"], dtype=np.int32)
    counts = np.bincount(component[np.isin(state, _RUNNABLE)])
    found = Counter({ledger.strings[code]: int(n) for code, n in enumerate(counts) if n})
    found[""] += _tasks_of_plain_dask(conductor, sum(found.values()))
    return found


def _tasks_of_plain_dask(conductor: Conductor, ours: int) -> int:
    # Collections and calls of another client are tasks of the scheduler's, too.
    scheduler = conductor.scheduler
    on_workers = sum(len(ws.processing) for ws in scheduler.workers.values())
    everything = on_workers + len(scheduler.queued) + len(scheduler.unrunnable)
    return max(0, everything - ours - len(conductor.hold))
