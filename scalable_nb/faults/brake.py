"""Notices when a batch only ever fails in the same way."""

from __future__ import annotations


class Brake:
    """Counts the tasks of one batch that failed for good, one after the other, alike.

    Parameters
    ----------
    limit : int
        How many make it a cascade; 0: never.

    Examples
    --------
    >>> brake = Brake(2)
    >>> brake.fail("a"), brake.fail("b"), brake.fail("b")
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
