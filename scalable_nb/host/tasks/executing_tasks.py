"""Which of the tasks on a worker are executing.

The scheduler sends a worker more tasks than it has threads, so that it never waits for the
next one. To a person only as many run as there are threads; the others stand in line.
"""

from __future__ import annotations

from typing import Any


class Seats:
    """The threads of all workers, and who has one.

    Tasks take seats in the order in which they were sent. A worker goes by priority, which is
    the same order unless priorities differ.
    """

    def __init__(self) -> None:
        self._free: dict[str, int] = {}
        self._seated: dict[Any, str] = {}
        self._standing: dict[str, dict[Any, None]] = {}

    def take(self, worker: str, threads: int, key: Any) -> bool:
        """A task was sent to a worker; says whether it has a thread at once."""
        free = self._free.setdefault(worker, threads)
        if free > 0:
            self._free[worker] = free - 1
            self._seated[key] = worker
            return True
        self._standing.setdefault(worker, {})[key] = None
        return False

    def leave(self, worker: str, key: Any) -> Any | None:
        """A task left a worker; gives the one that takes its thread, where one stood in line."""
        standing = self._standing.get(worker, {})
        if self._seated.get(key) != worker:
            standing.pop(key, None)
            return None
        del self._seated[key]
        if not standing:
            self._free[worker] += 1
            return None
        following = next(iter(standing))
        del standing[following]
        self._seated[following] = worker
        return following

    def standing(self, worker: str) -> list[Any]:
        """The tasks that wait on a worker for a thread."""
        return list(self._standing.get(worker, ()))

    def close(self, worker: str) -> None:
        """A worker is gone; a task that was stolen from it may still be seated there."""
        self._free.pop(worker, None)
        self._standing.pop(worker, None)
        self._seated = {key: where for key, where in self._seated.items() if where != worker}
