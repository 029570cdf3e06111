"""Names that both ends of a connection use: operations, topics, metrics, resources."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Operation(StrEnum):
    """An operation of another process, called or sent as a stream message.

    The comments name the message, and the reply after an arrow; see `protocol.messages`.
    """

    # A kernel calls the host.
    RESUBMIT = "scalable_resubmit"  # ResubmitRequest -> ResubmitReply
    RETRY_NOW = "scalable_retry_now"  # TaskKeys -> TaskKeys
    GIVE_UP = "scalable_give_up"  # TaskKeys -> TaskKeys
    RESUME_TASKS = "scalable_resume_tasks"  # TaskKeys -> TaskKeys
    CANCEL_TASKS = "scalable_cancel_tasks"  # TaskKeys -> TaskKeys
    RESUME_BATCHES = "scalable_resume_batches"  # ResumeRequest -> TaskCount
    CANCEL_BATCHES = "scalable_cancel_batches"  # CancelRequest -> TaskCount
    DROP_LEFT_CLAIMS = "scalable_drop_left_claims"  # TaskKeys -> TaskKeys
    GET_CALL = "scalable_get_call"  # CallRequest -> CallReply or None
    GET_LEDGER = "scalable_get_ledger"  # LedgerRequest -> Delta or None
    FLUSH = "scalable_flush"  # EmptyMessage -> None
    BLOCKING_PAUSES = "scalable_blocking_pauses"  # TaskKeys -> PausesReply
    STATUS = "scalable_status"  # EmptyMessage -> StatusReply
    STOP = "scalable_stop"  # EmptyMessage -> None
    SCALE = "scalable_scale"  # ScaleRequest -> WorkerCounts
    ADAPT = "scalable_adapt"  # AdaptRequest -> WorkerCounts

    # A kernel sends to the host, in order with the graphs that it submits.
    BATCH_SUBMITTED = "scalable-batch-submitted"  # BatchMessage
    CALLS_ANSWERED = "scalable-calls-answered"  # AnsweredCalls
    CALLS_LEFT_OUT = "scalable-calls-left-out"  # LeftOutCalls
    INPUTS_CHANGED = "scalable-inputs-changed"  # InputsChanged
    SOURCES_SENT = "scalable-sources-sent"  # ModuleSources
    TASKS_REOPENED = "scalable-tasks-reopened"  # ReopenedTasks
    STORE_RESULTS = "scalable-store-results"  # StoreRequest
    JOIN = "scalable-join"  # JoinRequest

    # The host sends to a kernel, in order with the states of tasks.
    JOINED = "scalable-joined"  # JoinReply

    # A worker calls the host.
    ACQUIRE_PERMIT = "scalable_acquire_permit"  # PermitRequest -> PermitReply
    GET_SOURCES = "scalable_get_sources"  # SourcesRequest -> ModuleSources
    REPLACE_PROCESS = "scalable_replace_process"  # ModulesDiffer -> ReplaceReply
    ATTEMPT_FAILED = "scalable_attempt_failed"  # AttemptFailed -> FailureReply

    # A nanny calls the host.
    ATTEMPT_EXPIRED = "scalable_attempt_expired"  # AttemptExpired -> ExpiryReply
    WORKER_EXITED = "scalable_worker_exited"  # WorkerExited -> None
    WORKER_LEAVES = "scalable_worker_leaves"  # WorkerExited -> LeaveReply
    WORKER_HANDS_OVER = "scalable_worker_hands_over"  # WorkerMessage -> None
    JOB_BEGAN = "scalable_job_began"  # JobBegan -> None

    # The host calls a nanny.
    WORKER_LOST = "scalable_worker_lost"  # WorkerMessage -> None
    END_PROCESS = "scalable_end_process"  # WorkerMessage -> None

    # The host sends to a worker, in order with the tasks that Dask takes back, and its answer.
    QUERY_REVOKED = "scalable-query-revoked"  # RevocationQuery
    ANSWER_REVOKED = "scalable-answer-revoked"  # RevocationAnswer


#: Topic under which the host logs notices for all kernels.
NOTICE_TOPIC: Final = "scalable-notice"

#: Metric of a worker's heartbeat: peak memory of its process in bytes.
PEAK_METRIC: Final = "scalable_peak_bytes"

#: Dask resource that the workers of a component offer, before the component's name.
COMPONENT_PREFIX: Final = "component:"

#: More than any worker has threads: it says where a task may run, not how many of them.
_UNLIMITED: Final = 1e6


def offer(component: str) -> dict[str, float]:
    """Return the resources that a worker of this component offers."""
    return {f"{COMPONENT_PREFIX}{component}": _UNLIMITED} if component else {}


def demand(component: str) -> dict[str, float]:
    """Return the resources that a task of this component needs."""
    return {f"{COMPONENT_PREFIX}{component}": 1} if component else {}
