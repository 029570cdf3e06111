"""All messages between kernels, host, workers and nannies, and the replies to them.

`protocol.operations` lists which operation carries which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any

from scalable_nb.errors import ProtocolError
from scalable_nb.faults.circuit_breaker import Pause
from scalable_nb.protocol.annotations import CHANGEABLE_ENTRIES, TaskAnnotation
from scalable_nb.protocol.exit_report import ExitReport, Span
from scalable_nb.protocol.wire import Message


class EmptyMessage(Message):
    """A request without values."""


# --- tasks and batches -----------------------------------------------------------------


class BatchMessage(Message):
    """The properties shared by the tasks of one ``submit`` or ``map``.

    Attributes
    ----------
    keys, previews : tuple
        The tasks, and their arguments as text.
    is_known : bool
        Whether the ledger has the tasks already: stored results had answered them.
    is_async : bool
        Whether the function is a coroutine function.
    runs_to_end : bool
        Whether the tasks run to their end if the last claim is released before: those of a
        named batch, and those that a resubmission starts.
    """

    batch_id: str
    name: str = ""
    function: str = ""
    task: str = ""
    component: str = ""
    tag: str = ""
    is_async: bool = False
    keys: tuple[Any, ...] = ()
    previews: tuple[str, ...] = ()
    is_known: bool = False
    runs_to_end: bool = False

    def __post_init__(self) -> None:
        if len(self.keys) != len(self.previews):
            raise ProtocolError(
                f"BatchMessage has {len(self.keys)} keys and {len(self.previews)} previews; "
                "expected one preview for each key"
            )

    def with_previews(self, previews: Mapping[Any, str], *, is_known: bool = False) -> BatchMessage:
        """Return the message that announces these tasks of the batch."""
        return replace(
            self,
            keys=tuple(previews),
            previews=tuple(previews.values()),
            is_known=is_known,
        )


class AnsweredCalls(Message):
    """Calls that a client answered with stored results.

    Attributes
    ----------
    batch : BatchMessage
    result_keys : tuple of str
        Of the results, in the order of the batch's keys.
    """

    batch: BatchMessage
    result_keys: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.result_keys or len(self.result_keys) != len(self.batch.keys):
            raise ProtocolError(
                f"AnsweredCalls has {len(self.batch.keys)} keys and {len(self.result_keys)} "
                "result keys; expected one result key for each key, and at least one"
            )


class LeftOutCalls(Message):
    """Calls of an earlier run that do not run in this one.

    Attributes
    ----------
    batch : BatchMessage
    states : tuple of str
        Label of each one's state: a final one of `telemetry.rows.TaskState`.
    reasons : tuple of str
        Why each one does not run.
    errors : tuple of str
        Name of the class of each one's last error; empty if it did not fail.
    """

    batch: BatchMessage
    states: tuple[str, ...]
    reasons: tuple[str, ...]
    errors: tuple[str, ...]

    def __post_init__(self) -> None:
        counts = {len(self.batch.keys), *map(len, (self.states, self.reasons, self.errors))}
        if len(counts) > 1:
            raise ProtocolError(
                f"LeftOutCalls has {len(self.batch.keys)} keys, {len(self.states)} states, "
                f"{len(self.reasons)} reasons and {len(self.errors)} errors; expected the same "
                "number of each"
            )


class InputsChanged(Message):
    """Numbers of inputs that tasks compute, if they differ from the announcements.

    Each task that a client announces by `BatchMessage`, `AnsweredCalls` or `LeftOutCalls` stands
    for one input.

    Attributes
    ----------
    keys : tuple
    changes : tuple of int
        How many inputs each of the tasks gets or loses.
    """

    keys: tuple[Any, ...]
    changes: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.keys) != len(self.changes):
            raise ProtocolError(
                f"InputsChanged has {len(self.keys)} keys and {len(self.changes)} changes; "
                "expected one change for each key"
            )


class ReopenedTasks(Message):
    """Calls that a client submitted again while it holds their failed futures.

    Attributes
    ----------
    keys : tuple
    annotation : dict
        The new terms, as in `TaskAnnotation.to_wire`. Checked, but not decoded: the tasks get it
        as it is.
    """

    keys: tuple[Any, ...]
    annotation: dict[str, Any]

    def __post_init__(self) -> None:
        TaskAnnotation.from_wire(self.annotation)


class StoreRequest(Message):
    """Tasks whose results are to be stored, though the tasks do not store them themselves.

    Attributes
    ----------
    keys : tuple
    limit_bytes : int
        Size up to which a result is stored.
    """

    keys: tuple[Any, ...]
    limit_bytes: int


class TaskKeys(Message):
    """Keys of the tasks that a request is about, or of those that it changed."""

    keys: tuple[Any, ...]


class TaskCount(Message):
    """The number of tasks that a request changed."""

    count: int


class JoinRequest(Message):
    """Tasks that a client observes or claims.

    Attributes
    ----------
    request_id : int
        Chosen by the client and repeated in the reply.
    keys : tuple
    is_claim : bool
        Whether the tasks are kept for this client. Otherwise it only receives their states.
    """

    request_id: int
    keys: tuple[Any, ...]
    is_claim: bool


class JoinReply(Message):
    """The keys of a `JoinRequest` that have no task, or none to observe."""

    request_id: int
    unknown: tuple[Any, ...]


class ResubmitRequest(Message):
    """Failed tasks to run again under their own keys.

    Attributes
    ----------
    keys : tuple
    changes : dict
        Values that replace those of the tasks: of `PolicyTerms.to_wire`, and ``component``. Not
        a `PolicyTerms`: entries that are missing stay, and a value may be changed to the default.
    named : tuple
        Keys of tasks that run again although they are not idempotent.
    dry_run : bool
        Whether only the reply is wanted.
    """

    keys: tuple[Any, ...]
    changes: dict[str, Any]
    named: tuple[Any, ...]
    dry_run: bool

    def __post_init__(self) -> None:
        unknown = sorted(self.changes.keys() - CHANGEABLE_ENTRIES)
        if unknown:
            raise ProtocolError(
                f"ResubmitRequest.changes has {unknown}; expected {sorted(CHANGEABLE_ENTRIES)}"
            )
        if not isinstance(self.changes.get("component", ""), str):
            raise ProtocolError(
                f"ResubmitRequest.changes: component is {self.changes['component']!r:.80}; "
                "expected str"
            )


class ResubmitReply(Message):
    """Keys of the tasks that run again, and of those that are not idempotent."""

    chosen: tuple[Any, ...]
    left_out: tuple[Any, ...]


class ResumeRequest(Message):
    """Names of paused batches that continue; None: all."""

    batches: tuple[str, ...] | None


class CancelRequest(Message):
    """Names of batches whose unfinished tasks are cancelled; None: all."""

    batches: tuple[str, ...] | None
    only_paused: bool


class CallRequest(Message):
    """The key of a task whose call is wanted."""

    key: Any


class CallReply(Message):
    """The call of a task.

    Attributes
    ----------
    label : str
    call : bytes
        The pickled `Call`.
    inputs : tuple
        Keys of the tasks whose results it takes.
    is_async : bool
    idempotent : bool
    timeout_s : float or None
    """

    label: str
    call: bytes = field(repr=False)
    inputs: tuple[Any, ...]
    is_async: bool
    idempotent: bool
    timeout_s: float | None


class LedgerRequest(Message):
    """A request for changes of the ledger.

    Attributes
    ----------
    ledger_id : str
        Of the ledger that the client has a copy of.
    since : int
        The last sequence number that it has.
    wait_s : float
        How long to wait for a change.
    client : str
    reports_sent : int
        How many `AnsweredCalls` it has sent: the reply is to contain them.
    """

    ledger_id: str
    since: int
    wait_s: float
    client: str = ""
    reports_sent: int = 0


# --- the session -----------------------------------------------------------------------


class WorkerStatus(Message):
    """The scheduler's record of a worker."""

    name: str
    address: str
    component: str
    state: str
    threads: int
    memory_bytes: int
    memory_limit_bytes: int
    host: str


class StatusReply(Message):
    """The state of a session.

    Attributes
    ----------
    counts : dict of str to int
        Number of tasks by state.
    notices : tuple of str
    pauses : tuple of Pause
    jobs : tuple of dict
        As in `SessionStatus`.
    host_job : dict
        The same, of the job that the host runs in.
    workers : tuple of WorkerStatus
    """

    counts: dict[str, int]
    notices: tuple[str, ...]
    pauses: tuple[Pause, ...]
    jobs: tuple[dict[str, Any], ...]
    host_job: dict[str, Any]
    workers: tuple[WorkerStatus, ...]


class PausesReply(Message):
    """The paused batches that keep tasks from running."""

    pauses: tuple[Pause, ...]


class ScaleRequest(Message):
    """How many workers are wanted: of a component, or of all together."""

    count: int
    component: str | None = None


class AdaptRequest(Message):
    """Limits of the number of workers of a component, or of each."""

    minimum: int
    maximum: int
    component: str | None = None


class WorkerCounts(Message):
    """Number of workers wanted, by component."""

    counts: dict[str, int]


class ModuleSources(Message):
    """The sources of the user's modules that calls import by name.

    Attributes
    ----------
    digest : str
    packed : bytes
        See `protocol.module_sources`; empty if they are unknown.
    """

    digest: str
    packed: bytes = field(repr=False)


# --- attempts --------------------------------------------------------------------------


class PermitRequest(Message):
    """A request to call a function that must not be called twice."""

    key: Any
    worker: str
    run_id: int


class PermitReply(Message):
    """Whether the call is permitted; if not, why, or nothing if no client waits for it."""

    is_granted: bool
    refusal: str = ""


class SourcesRequest(Message):
    """The digest of the sources that a worker needs."""

    digest: str


class ModulesDiffer(Message):
    """A worker process has imported other versions of modules than a task needs.

    Attributes
    ----------
    digest : str
        Of the sources that the task needs.
    names : tuple of str
        The modules.
    is_of_calls : bool
        Whether all of them were imported for other calls, and none from its file.
    """

    key: Any
    worker: str
    digest: str
    names: tuple[str, ...]
    is_of_calls: bool


class ReplaceReply(Message):
    """Whether the worker process will be replaced, so that the task is to run again."""

    will_replace: bool


class ErrorReport(Message):
    """The failure of an attempt, as its worker reports it. Durations in seconds, sizes in bytes."""

    failure_class: str
    message: str
    category: str
    fingerprint: str
    started_at: float
    duration_s: float
    error_module: str = ""
    traceback: str = ""
    host: str = ""
    pid: int | None = None
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None


class AttemptFailed(Message):
    """An attempt raised an exception.

    Attributes
    ----------
    verdict : {"retry_on", "give_up_on"} or None
        Which of the user's rules matched.
    error : ErrorReport
    exception : bytes
        Pickled, for the client.
    """

    key: Any
    worker: str
    run_id: int
    verdict: str | None
    error: ErrorReport
    exception: bytes = field(repr=False)


class FailureReply(Message):
    """The decision about a failed attempt.

    Attributes
    ----------
    will_retry : bool
    is_recorded : bool
        Whether the host knows the attempt's outcome now. An attempt that was lost or revoked
        meanwhile stays in the worker's registry, where the host looks for it.
    """

    will_retry: bool
    is_recorded: bool


class AttemptExpired(Message):
    """An attempt exceeded its time limit.

    Attributes
    ----------
    name : str
        The task's `registered_name`.
    neighbours : tuple of str
        The same, of the other attempts that the worker is executing.
    """

    name: str
    worker: str
    run_id: int
    started_at: float
    duration_s: float
    memory_bytes: int
    neighbours: tuple[str, ...]


class ExpiryReply(Message):
    """Whether to kill the worker, and whether the attempt's outcome is decided."""

    must_kill: bool
    is_settled: bool


# --- workers ---------------------------------------------------------------------------


class WorkerExited(Message):
    """A worker process ended, or will end soon with its job."""

    worker: str
    report: ExitReport


class LeaveReply(Message):
    """Whether the tasks of a worker that leaves may finish first."""

    may_finish: bool


class WorkerMessage(Message):
    """The address of the worker that the operation is about."""

    worker: str


class JobBegan(Message):
    """The name of a job's first worker, and the age of the job in seconds."""

    name: str
    age_s: float


class RevocationQuery(Message):
    """A query about a task that was revoked from a worker: whether it had started.

    Attributes
    ----------
    until_ended : bool
        Whether the answer is to wait for the end of an attempt that started.
    """

    key: Any
    run_id: int
    until_ended: bool


class RevocationAnswer(Message):
    """When the attempt started and ended; no span if it had not started."""

    key: Any
    run_id: int
    span: Span | None
