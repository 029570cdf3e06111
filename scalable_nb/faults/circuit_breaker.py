"""Pause a batch whose tasks fail in the same way."""

from __future__ import annotations

from typing import TypedDict


class Pause(TypedDict):
    """A batch whose remaining tasks are paused.

    ``count`` tasks of ``batch`` wait for the user, because at least ``limit`` in a row failed
    with ``failure_class`` and (the last of them) ``message``.
    """

    batch: str
    count: int
    limit: int
    failure_class: str
    message: str


def pause_text(pause: Pause) -> str:
    """A pause in one sentence; the error's text is somebody else's.

    Examples
    --------
    >>> pause_text(Pause(batch="a", count=1, limit=20, failure_class="KeyError", message="'x'"))
    "1 task of 'a' is paused: 20 in a row failed with KeyError: 'x'"
    """
    tasks = "1 task" if pause["count"] == 1 else f"{pause['count']:,} tasks"
    verb = "is" if pause["count"] == 1 else "are"
    error = pause["failure_class"] + (f": {pause['message']}" if pause["message"] else "")
    return (
        f"{tasks} of {pause['batch']!r} {verb} paused: "
        f"{pause['limit']} in a row failed with {error}"
    )


class CircuitBreaker:
    """Decides when a batch is paused because its tasks fail in the same way, one after another.

    A batch in which a task has succeeded is paused only if the failures also exceed a quarter of
    it: sorted parameters often have a range in which all tasks fail.

    Parameters
    ----------
    limit : int
        Identical final failures in a row that pause the batch; 0: never.
    size : int
        Tasks of the batch.

    Examples
    --------
    >>> breaker = CircuitBreaker(2, size=100)
    >>> breaker.fail("a"), breaker.fail("b"), breaker.fail("b")
    (False, False, True)
    """

    def __init__(self, limit: int, size: int) -> None:
        self._limit = limit
        self._size = size
        self._has_success = False
        self._fingerprint = ""
        self._count = 0
        self._is_tripped = False

    def succeed(self) -> None:
        """Note that a task succeeded: the count of failures starts again."""
        self._has_success = True
        self._restart("", 0)

    def fail(self, fingerprint: str) -> bool:
        """Note that a task failed after all retries; return whether to pause the batch now."""
        if fingerprint == self._fingerprint:
            self._count += 1
        else:
            self._restart(fingerprint, 1)
        is_over = self._limit and self._count >= self._limit
        is_many = not self._has_success or self._count > self._size / 4
        is_first = not self._is_tripped
        self._is_tripped = bool(is_over and is_many)
        return self._is_tripped and is_first

    def release(self) -> None:
        """Never pause this batch again."""
        self._limit = 0

    def _restart(self, fingerprint: str, count: int) -> None:
        self._fingerprint, self._count, self._is_tripped = fingerprint, count, False
