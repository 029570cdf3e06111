"""The rows that are written and read, and the words for a task's state.

Times are UTC. In the ledger they are seconds since the epoch (``_at``); in the
journal they are ISO 8601 strings. Durations are seconds (``_s``).
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, Final, TypedDict

SCHEMA_VERSION: Final = 1

#: ``reason`` of a task that failed because a person did not want to wait for its retry.
GIVEN_UP: Final = "given up by a person"

#: ``reason`` of a task that the user cancelled.
CANCELLED_BY_USER: Final = "cancelled by the user"

#: ``reason`` of a task that stopped because nothing claimed its result any longer: the user did not
#: cancel it. Futures of released results have it, too.
RELEASED: Final = "released"


class TaskState(IntEnum):
    """The disjoint states of a task; the value is what the ledger stores.

    Every task submitted is in exactly one of them, so their counts always add up
    to the number of tasks.
    """

    PENDING = 0  # known, but no worker can take it yet
    WAITING = 1  # for its inputs
    QUEUED = 2  # runnable, for a free slot
    RUNNING = 3  # assigned to a worker
    RETRYING = 4  # between two attempts, holding no slot
    PAUSED = 5  # held back by the circuit breaker
    SUCCEEDED = 6
    CACHED = 7  # answered by a stored result, the function was not called
    FAILED = 8  # for good
    CANCELLED = 9  # by the user
    LEFT_OUT = 10  # of an earlier run, and not chosen by the resubmission
    NEVER_RAN = 11  # released before it ended

    @property
    def label(self) -> str:
        """The state as a person reads it."""
        return self.name.lower().replace("_", " ")

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self >= TaskState.SUCCEEDED

    @property
    def is_runnable(self) -> bool:
        """Whether it runs, or would if there were a worker for it."""
        return self in (TaskState.PENDING, TaskState.QUEUED, TaskState.RUNNING)


STATE_LABELS: Final = tuple(state.label for state in TaskState)


class FailureRow(TypedDict, total=False):
    """One failed attempt: a line of ``failures.jsonl``.

    The first nine names are those of the package `scalable`, whose files people
    already have; the others are ours.
    """

    run_id: str
    failure_class: str
    message: str
    timestamp: str
    provider: str
    task_id: str
    details: dict[str, Any]
    event_type: str
    schema_version: int

    task_name: str
    function_name: str
    component: str
    tag: str
    attempt: int
    attempts_allowed: int
    is_final: bool
    will_retry: bool
    retry_in_s: float | None
    category: str
    fingerprint: str
    error_module: str
    traceback: str
    worker: str
    host: str
    job_id: str | None
    job_state: str | None
    exit_code: int | None
    memory_bytes: int | None
    memory_limit_bytes: int | None
    started_at: str | None
    queued_s: float | None
    duration_s: float | None
    args_preview: str


class TaskRow(TypedDict, total=False):
    """One finished task: a line of ``tasks.jsonl``.

    Where it succeeded, ``worker`` to ``memory_bytes`` tell of the attempt that did;
    ``memory_bytes`` is the most that its worker process is known to have used until then.
    """

    run_id: str
    schema_version: int
    event_type: str
    timestamp: str
    task_id: str
    task_name: str
    function_name: str
    component: str
    tag: str
    batch: str
    state: str
    attempts: int
    attempts_allowed: int
    worker: str
    host: str
    pid: int | None
    submitted_at: str
    started_at: str | None
    queued_s: float | None
    duration_s: float | None
    memory_bytes: int | None
    result_bytes: int | None
    args_preview: str
    failure_class: str | None
    reason: str | None


class InputRow(TypedDict):
    """Numbers of inputs that have changed: a line of ``inputs.jsonl``.

    A task that is in no line computes one input. The last line that has it counts. A task
    without inputs was replaced by one of corrected code.

    Attributes
    ----------
    total : int
        Inputs of the run so far; plain tasks of Dask count one each.
    inputs : dict of str to int
        Task id -> number of inputs that it computes now.
    """

    run_id: str
    schema_version: int
    event_type: str
    timestamp: str
    total: int
    inputs: dict[str, int]


def utc_iso(at: float) -> str:
    """Seconds since the epoch as UTC ISO 8601 with milliseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def key_text(key: Any) -> str:
    """How a task's key stands in the ledger and the journal; Dask's may be tuples."""
    return key if isinstance(key, str) else repr(key)
