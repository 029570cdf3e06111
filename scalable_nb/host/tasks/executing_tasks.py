"""Which of the tasks on a worker are executing.

The scheduler sends a worker more tasks than it has threads, so that it never waits for the
next one. For the user only as many run as there are threads; the others are queued.
"""

from __future__ import annotations

from typing import Any


class ExecutingTasks:
    """The threads of all workers, and the tasks that have one.

    Tasks get threads in the order in which they were sent. A worker goes by priority, which is
    the same order unless priorities differ.
    """

    def __init__(self) -> None:
        self._free: dict[str, int] = {}
        self._executing: dict[Any, str] = {}
        self._ready: dict[str, dict[Any, None]] = {}

    def assign(self, worker: str, threads: int, key: Any) -> bool:
        """Record a task sent to a worker; return whether it got a thread."""
        free = self._free.setdefault(worker, threads)
        if free > 0:
            self._free[worker] = free - 1
            self._executing[key] = worker
            return True
        self._ready.setdefault(worker, {})[key] = None
        return False

    def release(self, worker: str, key: Any) -> Any | None:
        """Record that a task left a worker; return the queued task that got its thread, if any."""
        ready = self._ready.get(worker, {})
        if self._executing.get(key) != worker:
            ready.pop(key, None)
            return None
        del self._executing[key]
        if not ready:
            self._free[worker] += 1
            return None
        following = next(iter(ready))
        del ready[following]
        self._executing[following] = worker
        return following

    def ready(self, worker: str) -> list[Any]:
        """Return the tasks that are queued on a worker."""
        return list(self._ready.get(worker, ()))

    def close(self, worker: str) -> None:
        """Forget a worker; a task that was stolen from it may still have a thread there."""
        self._free.pop(worker, None)
        self._ready.pop(worker, None)
        self._executing = {key: where for key, where in self._executing.items() if where != worker}
