"""The end of a worker process, as its nanny reports it."""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum

from scalable_nb.protocol.wire import Message

#: Start and end of an attempt, in seconds since the epoch; no end while it is executing.
Span = tuple[float, float | None]


class ExitCause(StrEnum):
    """The reason why a worker process ended, or why a task was taken back from a worker."""

    MEMORY = "memory"  # over the nanny's limit
    KERNEL = "kernel"  # killed by the kernel: out of memory
    TIMEOUT = "timeout"  # an attempt exceeded its time limit
    STOPPED = "stopped"  # SIGSTOP, and not continued
    REPLACED = "replaced"  # it had imported another version of the user's modules
    CUT = "cut"  # the connection to the scheduler broke
    TERMINATED = "terminated"  # by the batch system
    EXIT = "exit"  # by itself, or by a signal from elsewhere
    INPUT = "input"  # taken back: an input was lost with another worker
    REVOKED = "recalled"  # taken back for another reason

    @property
    def is_memory(self) -> bool:
        """Whether the process was killed for the memory it used."""
        return self in (ExitCause.MEMORY, ExitCause.KERNEL)


class ExitReport(Message):
    """A nanny's report on the end of its worker process, or a worker's on a revoked task.

    Attributes
    ----------
    cause : ExitCause
    attempts : dict of int to Span
        By run id: the attempts that were executing, and those that had ended recently.
    exit_code : int or None
    memory_bytes, memory_limit_bytes : int or None
        Peak memory of the process, and its limit.
    log_excerpt : str
        The last lines of the process's log.
    """

    cause: ExitCause
    attempts: dict[int, Span] = field(default_factory=dict)
    exit_code: int | None = None
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None
    log_excerpt: str = ""

    @property
    def has_been_executing(self) -> bool:
        """Whether any attempt was executing at the end."""
        return any(ended_at is None for _, ended_at in self.attempts.values())
