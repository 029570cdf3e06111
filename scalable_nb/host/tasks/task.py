"""Records of the host: a task, a batch of tasks, a failed attempt."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Self

from scalable_nb.faults.circuit_breaker import CircuitBreaker
from scalable_nb.faults.decision import PolicyTerms
from scalable_nb.faults.fingerprint import fingerprint
from scalable_nb.protocol.messages import BatchMessage, ErrorReport
from scalable_nb.telemetry.rows import key_text

#: Why a task that had succeeded has another attempt: its result was lost with a worker.
RECOMPUTED: Final = "recomputed"

#: Why a task succeeded without a report of its worker: its result was found on disk.
RECOVERED: Final = "kept before its worker was lost"


@dataclass(slots=True)
class TaskBatch:
    """The properties shared by the tasks of one ``submit`` or ``map``.

    Attributes
    ----------
    batch_id : str
        Empty for Dask's own tasks; see `NativeTasks`.
    is_known : bool
        Whether the ledger has the tasks already: stored results had answered them.
    previews : dict
        Key -> arguments as text, of tasks that have not arrived yet.
    is_async : bool
        Whether the function is a coroutine function.
    runs_to_end : bool
        As in `BatchMessage`.
    size : int
        Tasks that were announced.
    terms : PolicyTerms or None
        Those of the first task that arrived.
    breaker : CircuitBreaker or None
    """

    batch_id: str
    name: str = ""
    function: str = ""
    task: str = ""
    component: str = ""
    tag: str = ""
    is_known: bool = False
    is_async: bool = False
    runs_to_end: bool = False
    size: int = 0
    previews: dict[Any, str] = field(default_factory=dict)
    terms: PolicyTerms | None = None
    breaker: CircuitBreaker | None = None

    @classmethod
    def announced(cls, message: BatchMessage) -> Self:
        """Return the batch of a message; its keys are dropped as the tasks arrive."""
        return cls(
            message.batch_id,
            name=message.name,
            function=message.function,
            task=message.task,
            component=message.component,
            tag=message.tag,
            is_known=message.is_known,
            is_async=message.is_async,
            runs_to_end=message.runs_to_end,
            size=len(message.keys),
            previews=dict(zip(message.keys, message.previews, strict=True)),
        )

    def label(self, key: Any, preview: str) -> str:
        """Return the call as text, or the key of a native task."""
        return f"{self.function}({preview})" if self.batch_id else key_text(key)


@dataclass(slots=True)
class TrackedTask:
    """The host's record of one task.

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
    store_limit_bytes : int or None
        Size up to which the host stores its result; None if no client requested that.
    runs_to_end : bool
        Whether it runs to its end if the last claim is released before.
    is_cancelled : bool
        Whether the user is cancelling it at this moment; set by `ClientLeases`.
    exception : bytes
        The last attempt's exception, pickled by the worker, until the task runs again or has
        failed; empty at all other times.
    """

    key: Any
    row: int
    batch: TaskBatch
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
    store_limit_bytes: int | None = None
    runs_to_end: bool = False
    is_cancelled: bool = False
    succeeded_at: float = 0.0
    exception: bytes = b""
    reason: str | None = None

    @property
    def is_native(self) -> bool:
        """Whether it is no call of `submit` or `map`: Dask alone decides about it."""
        return not self.batch.batch_id

    @property
    def label(self) -> str:
        """The call as text, or the key of a native task."""
        return self.batch.label(self.key, self.preview)

    def fingerprint_of(self, failure_class: str) -> str:
        """Group failures that have no frames of the user's: by class and function."""
        return fingerprint(failure_class, self.batch.function, ())

    def queued_s(self, started_at: float | None) -> float | None:
        """Return the seconds that an attempt was queued before its start, or None if unknown."""
        return max(0.0, started_at - self.runnable_at) if started_at else None

    @property
    def attempts_allowed(self) -> int:
        """How many attempts there may be, further worker losses not counted."""
        return self.attempts_at_start + 1 + self.terms.retries + self.losses_used


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """A failed attempt; unknown values are None or empty. Durations in seconds, sizes in bytes."""

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

    @classmethod
    def reported(cls, error: ErrorReport, worker: str) -> Self:
        """Return the failed attempt that a worker reported."""
        return cls(worker=worker, **error.to_wire())
