"""How a worker process ended, as its nanny reports it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ExitReport:
    """A nanny's word on the end of its worker process, or a worker's on a task taken back."""

    #: "memory" (the nanny's limit), "kernel" (its limit), "timeout", "stopped", "cut",
    #: "terminated" (by the batch system) or "exit"; of a task that was taken back from a worker
    #: that lives: "input" or "recalled".
    cause: str
    #: Start and end of the attempts that were executing (no end) or had ended lately, by run_id.
    attempts: dict[int, tuple[float, float | None]]
    exit_code: int | None = None
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None
    last_words: str = ""

    @property
    def has_been_executing(self) -> bool:
        """Whether any attempt was executing at the end."""
        return any(ended_at is None for _, ended_at in self.attempts.values())

    @property
    def is_memory(self) -> bool:
        """Whether it was ended for its memory."""
        return self.cause in ("memory", "kernel")
