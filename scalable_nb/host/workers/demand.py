"""How many workers to have: what tasks could run now, and the number that is wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from time import time
from typing import Any, Final

import numpy as np

from scalable_nb.dask_adapter.scheduler import SchedulerAdapter
from scalable_nb.host.tasks.parked_tasks import ParkedTasks
from scalable_nb.host.tasks.task_registry import TaskRegistry
from scalable_nb.manifest.load import LoadedManifest
from scalable_nb.manifest.start_plan import Plan
from scalable_nb.telemetry.ledger import Ledger
from scalable_nb.telemetry.rows import TaskState

#: So long fewer workers must be enough before adaptive scaling lets one go.
SHRINK_AFTER_S: Final = 5.0


#: Looking through all tasks takes milliseconds, and their durations do not change in a moment.
_INTERVAL_S: Final = 5.0
#: So many must have finished before they say something about the others.
_ENOUGH: Final = 20

_RUNNABLE: Final = [state for state in TaskState if state.is_runnable]


def runnable_by_component(
    ledger: Ledger, adapter: SchedulerAdapter, parked: ParkedTasks
) -> Counter[str]:
    """Tasks that run or would run if there were a worker, by component (``""``: any).

    Those that wait for inputs, for their retry or for the user are not among them.
    """
    state = np.frombuffer(ledger.columns["state"], dtype=np.uint8)
    component = np.frombuffer(ledger.columns["component"], dtype=np.int32)
    counts = np.bincount(component[np.isin(state, _RUNNABLE)])
    found = Counter({ledger.strings[code]: int(n) for code, n in enumerate(counts) if n})
    # Collections and calls of another client are tasks of the scheduler's, too.
    found[""] += max(0, adapter.count_runnable() - sum(found.values()) - len(parked))
    return found


class Durations:
    """The time that tasks of a component need.

    Parameters
    ----------
    registry : TaskRegistry
    ledger : Ledger
    """

    def __init__(self, registry: TaskRegistry, ledger: Ledger) -> None:
        self._registry = registry
        self._ledger = ledger
        self._needed_s: dict[str, float] = {}
        self._looked_at = 0.0

    def needed_s(self, component: str) -> float:
        """The longest time limit of its unfinished tasks, else the 95th percentile of the others.

        0 where neither is known. Tasks without a component may come to the workers of any.
        """
        if time() - self._looked_at > _INTERVAL_S:
            self._look()
        return self._known_s(component)

    def _known_s(self, component: str) -> float:
        return max(self._needed_s.get(name, 0.0) for name in (component, ""))

    def expect(self, component: str, limit_s: float) -> bool:
        """Tasks with a time limit arrive; says whether more time is needed than before."""
        # Not by a new look, which would find these very tasks.
        is_more = limit_s > self._known_s(component)
        if is_more:
            self._needed_s[component] = limit_s
        return is_more

    def _look(self) -> None:
        self._looked_at = time()
        ledger = self._ledger
        state = np.frombuffer(ledger.columns["state"], dtype=np.uint8)
        component = np.frombuffer(ledger.columns["component"], dtype=np.int32)
        duration_s = np.frombuffer(ledger.columns["duration_s"], dtype=np.float32)
        has_succeeded = state == TaskState.SUCCEEDED
        self._needed_s = {}
        for code in np.unique(component):
            observed = duration_s[has_succeeded & (component == code)]
            if len(observed) >= _ENOUGH:
                self._needed_s[ledger.strings[code]] = float(np.percentile(observed, 95))
        for name, limit_s in self._limits(state).items():
            self._needed_s[name] = limit_s

    def _limits(self, state: Any) -> dict[str, float]:
        limits: dict[str, float] = {}
        for tracked in self._registry.values():
            limit_s = tracked.terms.timeout_s
            if limit_s is not None and not TaskState(state[tracked.row]).is_final:
                name = tracked.batch.component
                limits[name] = max(limit_s, limits.get(name, 0.0))
        return limits


@dataclass(frozen=True, slots=True)
class Limits:
    """Between what adaptive scaling keeps the number of workers."""

    minimum: int
    maximum: int

    def fit(self, tasks: int, threads: int) -> int:
        """Workers for so many tasks, with so many threads each."""
        return min(max(-(-tasks // threads), self.minimum), self.maximum)


@dataclass(slots=True)
class DesiredWorkers:
    """What is wanted of one kind of worker.

    Attributes
    ----------
    count : int
        Workers.
    limits : Limits or None
        None: the number is fixed.
    """

    count: int
    limits: Limits | None = None
    _fewer_since: float | None = None

    def adapt(self, tasks: int, threads: int, now: float) -> None:
        """Follow the work: grow at once, shrink when that has been enough for a while."""
        if self.limits is None:
            return
        fitting = self.limits.fit(tasks, threads)
        if fitting >= self.count:
            self.count, self._fewer_since = fitting, None
        elif self._fewer_since is None:
            self._fewer_since = now
        elif now - self._fewer_since >= SHRINK_AFTER_S:
            self.count, self._fewer_since = fitting, None


class DesiredByKind:
    """The wanted workers of all kinds: those of the start, and those that are added later.

    Parameters
    ----------
    at_start : mapping of str to DesiredWorkers
        By kind.
    """

    def __init__(self, at_start: Mapping[str, DesiredWorkers]) -> None:
        self._by_kind = dict(at_start)

    def __getitem__(self, kind: str) -> DesiredWorkers:
        return self._by_kind[kind]

    @property
    def kinds(self) -> Collection[str]:
        """The names of the kinds, in the order in which they were added."""
        return self._by_kind.keys()

    def items(self) -> Collection[tuple[str, DesiredWorkers]]:
        """Return the kinds and what is wanted of each."""
        return self._by_kind.items()

    def set(self, kind: str, desired: DesiredWorkers) -> None:
        """Replace what is wanted of a kind, or add the kind."""
        self._by_kind[kind] = desired


def desired_at_start(loaded: LoadedManifest, plan: Plan) -> dict[str, DesiredWorkers]:
    """Return how many workers a start asks for, by kind."""
    target = loaded.target
    counts = {c.name: c.workers for c in plan.components if c.workers is not None}
    counts = counts or {"": plan.workers}
    if target.adaptive is None:
        return {name: DesiredWorkers(count) for name, count in counts.items()}
    desired = {}
    for name in counts:
        component = loaded.manifest.components.get(name)
        own = component.max_workers if component is not None else None
        maximum = own or target.adaptive.maximum or target.max_workers or plan.workers
        minimum = min(target.adaptive.minimum, maximum)
        desired[name] = DesiredWorkers(minimum, Limits(minimum, maximum))
    return desired
