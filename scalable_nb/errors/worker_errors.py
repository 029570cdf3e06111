"""What a task fails with when its worker was lost.

Apart from the other errors because they derive from one of Dask's; their home, to whoever
reads or pickles their names, is `scalable_nb.errors`.
"""

from __future__ import annotations

from typing import Any

from distributed.scheduler import KilledWorker

from scalable_nb.errors import TaskError


class WorkerLostError(TaskError, KilledWorker):
    """The worker process ended while the task was executing on it.

    The message says in words what is known: exit code or signal, the state of
    the batch job, the last memory reading. Also caught by
    ``except distributed.KilledWorker``.
    """

    __module__ = "scalable_nb.errors"

    def __init__(self, message: str) -> None:
        # KilledWorker's own constructor wants scheduler objects that a reader of the
        # journal no longer has; the sentence is what a person needs.
        Exception.__init__(self, message)

    def __str__(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> Any:
        return type(self), self.args


class OutOfMemoryError(WorkerLostError, MemoryError):
    """The worker was ended because it used more memory than its limit."""

    __module__ = "scalable_nb.errors"


class UnknownOutcomeError(WorkerLostError):
    """A non-idempotent task was executing when its worker was lost.

    Nobody can know whether its side effects happened, so it is never called again.
    """

    __module__ = "scalable_nb.errors"
