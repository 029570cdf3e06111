"""Notices when a batch only ever fails in the same way."""

from __future__ import annotations

from typing import TypedDict


class Pause(TypedDict):
    """A batch whose rest is paused.

    ``count`` tasks of ``batch`` wait for a person, because ``limit`` in a row failed for
    good with ``failure_class`` and (for the last of them) ``message``.
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
    """Counts the tasks of one batch that failed for good, one after the other, alike.

    Parameters
    ----------
    limit : int
        How many make it a cascade; 0: never.

    Examples
    --------
    >>> breaker = CircuitBreaker(2)
    >>> breaker.fail("a"), breaker.fail("b"), breaker.fail("b")
    (False, False, True)
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._fingerprint = ""
        self._count = 0

    def succeed(self) -> None:
        """A task succeeded: what comes next is counted anew."""
        self._count = 0

    def fail(self, fingerprint: str) -> bool:
        """A task failed for good; says whether now is the moment to stop."""
        self._count = self._count + 1 if fingerprint == self._fingerprint else 1
        self._fingerprint = fingerprint
        return self._count == self._limit

    def release(self) -> None:
        """A person wants to go on: never stop this batch again."""
        self._limit = 0
