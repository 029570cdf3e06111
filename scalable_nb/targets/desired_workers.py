"""How many workers of a kind there should be: pure decisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from scalable_nb.manifest.load import LoadedManifest
from scalable_nb.manifest.start_plan import Plan

#: So long fewer workers must be enough before adaptive scaling lets one go.
SHRINK_AFTER_S: Final = 5.0


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
