"""What the host knows of one task, and of one failed attempt."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from scalable_nb.faults.decision import PolicyTerms
from scalable_nb.faults.fingerprint import fingerprint
from scalable_nb.protocol.messages import Batch

#: Why a task that had succeeded has a further attempt: its result was lost with a worker.
RECOMPUTED: Final = "recomputed"

#: Why a task succeeded without a word from its worker: its result was found on disk.
RECOVERED: Final = "kept before its worker was lost"


@dataclass(slots=True)
class TrackedTask:
    """What the host knows of one task.

    Attributes
    ----------
    row : int
        In the ledger.
    attempts : int
        Attempts that ended.
    retries_used, losses_used : int
        What they cost, since the task was submitted or resubmitted.
    attempts_at_start : int
        Attempts that had ended when it was last resubmitted.
    worker : str
        Address of the worker it was last sent to.
    runnable_at : float
        When it last began to wait for a slot; seconds since the epoch.
    is_reported : bool
        Whether the attempt that is ending has its row in ``failures.jsonl``.
    is_given_up : bool
        Whether there is no further attempt after the one that was reported last.
    succeeded_at : float
        When the execution began whose result was lost with its worker.
    is_parked : bool
        Whether it is kept from every worker; set by `ParkedTasks`.
    is_paused : bool
        Whether its batch was paused before it could run; set by `BatchBreakers`.
    has_stored_result : bool
        Whether its result is on disk.
    exception : bytes
        The last attempt's exception, pickled by the worker, until the task runs again or has
        failed; empty at all other times.
    """

    key: Any
    row: int
    batch: Batch
    preview: str
    terms: PolicyTerms
    attempts: int = 0
    retries_used: int = 0
    losses_used: int = 0
    attempts_at_start: int = 0
    worker: str = ""
    runnable_at: float = 0.0
    is_reported: bool = False
    is_given_up: bool = False
    is_parked: bool = False
    is_paused: bool = False
    has_stored_result: bool = False
    succeeded_at: float = 0.0
    exception: bytes = b""
    reason: str | None = None

    @property
    def is_native(self) -> bool:
        """Whether it is no call of `submit` or `map`: Dask alone decides about it."""
        return not self.batch.batch_id

    @property
    def label(self) -> str:
        """The call as a person reads it; the key of a task that is none."""
        return self.batch.label(self.key, self.preview)

    def fingerprint_of(self, failure_class: str) -> str:
        """Group failures that have no frames of the user's: by class and function."""
        return fingerprint(failure_class, self.batch.function, ())

    def queued_s(self, started_at: float | None) -> float | None:
        """Seconds that an attempt stood in line before its start, where that is known."""
        return max(0.0, started_at - self.runnable_at) if started_at else None

    @property
    def attempts_allowed(self) -> int:
        """How many attempts there may be, further worker losses not counted."""
        return self.attempts_at_start + 1 + self.terms.retries + self.losses_used


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """How an attempt failed, as far as it is known. Durations in seconds, sizes in bytes."""

    failure_class: str
    message: str
    category: str
    fingerprint: str
    error_module: str = ""
    traceback: str = ""
    started_at: float | None = None
    duration_s: float | None = None
    worker: str = ""
    host: str = ""
    pid: int | None = None
    exit_code: int | None = None
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None
    job_id: str | None = None
    job_state: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
