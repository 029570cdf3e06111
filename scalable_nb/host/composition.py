"""Builds the host's objects: all its parts are constructed here, and connected by arguments."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from scalable_nb.dask_adapter.scheduler import SchedulerAdapter
from scalable_nb.host.client_requests import ClientRequests
from scalable_nb.host.notices import Notices
from scalable_nb.host.result_storage import ResultStorage
from scalable_nb.host.tasks.attempt_failures import AtMostOnceGuard, AttemptFailures
from scalable_nb.host.tasks.batch_breakers import BatchBreakers
from scalable_nb.host.tasks.client_leases import ClientLeases
from scalable_nb.host.tasks.native_tasks import NativeTasks
from scalable_nb.host.tasks.parked_tasks import ParkedTasks
from scalable_nb.host.tasks.placement import TaskPlacement
from scalable_nb.host.tasks.revocations import Revocations
from scalable_nb.host.tasks.run_recorder import RunRecorder
from scalable_nb.host.tasks.task_registry import ExecutingTasks, TaskRegistry, TaskStates
from scalable_nb.host.tasks.task_rerun import TaskRerun
from scalable_nb.host.tasks.tracker import TaskTracker
from scalable_nb.host.tasks.worker_losses import WorkerLosses
from scalable_nb.host.workers.demand import (
    DesiredByKind,
    DesiredWorkers,
    Durations,
    runnable_by_component,
)
from scalable_nb.host.workers.job_losses import JobLosses
from scalable_nb.host.workers.job_monitor import JobMonitor
from scalable_nb.host.workers.larger_workers import LargerWorkers
from scalable_nb.host.workers.module_versions import ModuleVersions
from scalable_nb.host.workers.replacement import ReplacementLimits, WorkerReplacement
from scalable_nb.host.workers.retirement import GracefulRetirement
from scalable_nb.host.workers.scaling import Scaling
from scalable_nb.host.workers.worker_admission import WorkerAdmission
from scalable_nb.protocol.messages import (
    AdaptRequest,
    AnsweredCalls,
    AttemptExpired,
    AttemptFailed,
    BatchMessage,
    CallRequest,
    CancelRequest,
    EmptyMessage,
    InputsChanged,
    JobBegan,
    JoinRequest,
    LedgerRequest,
    LeftOutCalls,
    ModulesDiffer,
    ModuleSources,
    PermitRequest,
    ReopenedTasks,
    ResubmitRequest,
    ResumeRequest,
    RevocationAnswer,
    ScaleRequest,
    SourcesRequest,
    StoreRequest,
    TaskKeys,
    WorkerExited,
    WorkerMessage,
)
from scalable_nb.protocol.operations import Operation
from scalable_nb.protocol.wire import answering, receiving
from scalable_nb.targets.fleet import Fleet


@dataclass(frozen=True)
class HostParts:
    """The objects of a host that handle messages, or that its process or a test calls.

    Attributes
    ----------
    stop : asyncio.Event
        Set when the host is to end.
    """

    adapter: SchedulerAdapter
    recorder: RunRecorder
    notices: Notices
    stop: asyncio.Event
    registry: TaskRegistry
    leases: ClientLeases
    parked: ParkedTasks
    breakers: BatchBreakers
    failures: AttemptFailures
    losses: WorkerLosses
    revocations: Revocations
    native: NativeTasks
    rerun: TaskRerun
    retirement: GracefulRetirement
    scaling: Scaling
    versions: ModuleVersions
    requests: ClientRequests
    tracker: TaskTracker
    storage: ResultStorage


def compose(
    fleet: Fleet,
    recorder: RunRecorder,
    results: Path,
    *,
    desired_at_start: Mapping[str, DesiredWorkers],
    replacement_limits: ReplacementLimits,
    max_identical_failures: int,
    host_job: Callable[[], dict[str, Any]] = dict,
) -> HostParts:
    """Build a host around the scheduler of a fleet.

    Parameters
    ----------
    fleet : Fleet
    recorder : RunRecorder
    results : Path
        Folder for results that are still wanted at the end.
    desired_at_start : mapping of str to DesiredWorkers
        How many workers there are to be at first, by kind.
    replacement_limits : ReplacementLimits
    max_identical_failures : int
        Equal failures in a row that pause a batch; 0: never.
    host_job : callable
        Returns what is known of the batch job that this host is.
    """
    adapter, ledger, stop = SchedulerAdapter(fleet.scheduler), recorder.ledger, asyncio.Event()
    registry, notices = TaskRegistry(recorder), Notices(adapter)
    executing, at_most_once = ExecutingTasks(), AtMostOnceGuard()
    leases = ClientLeases(adapter, registry, ledger)
    placement = TaskPlacement(registry, ledger, adapter, fleet.kinds)
    states = TaskStates(registry, recorder, adapter, executing, notices, placement.restrict)
    parked = ParkedTasks(adapter, states.on_unpark)
    breakers = BatchBreakers(registry, ledger, adapter, parked, notices, max_identical_failures)
    desired = DesiredByKind(desired_at_start)
    larger = LargerWorkers(fleet, adapter, placement, desired, notices)
    failures = AttemptFailures(
        registry, recorder, adapter, parked, breakers, at_most_once, on_retry=larger.consider
    )
    job_losses, monitor = _job_parts(fleet, adapter, recorder, notices)
    losses = WorkerLosses(registry, adapter, parked, at_most_once, failures, job_losses)
    revocations = Revocations(adapter, parked, losses)
    native = NativeTasks(registry, recorder, adapter, states, notices)
    rerun = TaskRerun(registry, recorder, adapter, at_most_once, placement)
    storage = ResultStorage(registry, adapter, notices, results)
    retirement = GracefulRetirement(adapter, executing, losses, stop)
    replacement = WorkerReplacement(fleet, replacement_limits, notices)
    versions = ModuleVersions(registry, adapter, retirement, notices, results, storage.store_of)
    admission = WorkerAdmission(fleet, adapter, retirement, replacement)
    scaling = Scaling(
        fleet, desired, adapter, placement, replacement, retirement,
        Durations(registry, ledger),
        recorder, notices,
        runnable_by_component=partial(runnable_by_component, ledger, adapter, parked),
        observe_jobs=monitor.observe if monitor is not None else None,
        flush_results=storage.flush_wanted,
    )  # fmt: skip
    tracker = TaskTracker(
        adapter, registry, recorder, executing, leases, placement, states, parked, breakers,
        losses, revocations, native, rerun, store_result=storage.on_success,
        on_worker=admission.check, on_batch=scaling.expect,
    )  # fmt: skip
    requests = ClientRequests(
        registry, recorder, adapter, parked, breakers, failures, leases, notices,
        jobs=monitor.jobs if monitor is not None else list,
        host_job=host_job,
    )  # fmt: skip
    parts = HostParts(
        adapter, recorder, notices, stop, registry, leases, parked, breakers, failures, losses,
        revocations, native, rerun, retirement, scaling, versions, requests, tracker, storage,
    )  # fmt: skip
    _register_handlers(parts)
    adapter.add_plugin(tracker)
    return parts


def _job_parts(
    fleet: Fleet, adapter: SchedulerAdapter, recorder: RunRecorder, notices: Notices
) -> tuple[JobLosses, JobMonitor] | tuple[None, None]:
    """Build what follows the batch jobs of a fleet; nothing if its workers are in none."""
    if recorder.provider == "local":
        return None, None
    from scalable_nb.targets.jobqueue_fleet import JobFleet

    assert isinstance(fleet, JobFleet)
    return JobLosses(fleet), JobMonitor(fleet, adapter, recorder, notices)


def _register_handlers(parts: HostParts) -> None:
    """Register all functions that kernels, workers and nannies call."""
    failures, rerun, requests = parts.failures, parts.rerun, parts.requests
    scaling, retirement = parts.scaling, parts.retirement
    parts.adapter.register_stream_handlers(
        {
            Operation.BATCH_SUBMITTED: receiving(BatchMessage, requests.add_batch),
            Operation.CALLS_ANSWERED: receiving(AnsweredCalls, requests.add_answered),
            Operation.CALLS_LEFT_OUT: receiving(LeftOutCalls, requests.add_left_out),
            Operation.INPUTS_CHANGED: receiving(InputsChanged, requests.change_inputs),
            Operation.SOURCES_SENT: receiving(ModuleSources, parts.versions.keep_sources),
            Operation.TASKS_REOPENED: receiving(ReopenedTasks, rerun.reopen),
            Operation.STORE_RESULTS: receiving(StoreRequest, parts.storage.request),
            Operation.JOIN: receiving(JoinRequest, parts.leases.join),
            Operation.ANSWER_REVOKED: receiving(RevocationAnswer, parts.revocations.answer),
        }
    )
    parts.adapter.register_handlers(
        {
            # Workers and nannies.
            Operation.ACQUIRE_PERMIT: answering(PermitRequest, failures.acquire_permit),
            Operation.GET_SOURCES: answering(SourcesRequest, parts.versions.sources),
            Operation.REPLACE_PROCESS: answering(ModulesDiffer, parts.versions.replace),
            Operation.ATTEMPT_FAILED: answering(AttemptFailed, failures.attempt_failed),
            Operation.ATTEMPT_EXPIRED: answering(AttemptExpired, failures.attempt_expired),
            Operation.WORKER_EXITED: answering(WorkerExited, parts.losses.report),
            Operation.WORKER_LEAVES: answering(WorkerExited, retirement.worker_leaves),
            Operation.WORKER_HANDS_OVER: answering(WorkerMessage, retirement.worker_hands_over),
            Operation.JOB_BEGAN: answering(JobBegan, scaling.job_began),
            # Kernels.
            Operation.DROP_LEFT_CLAIMS: answering(TaskKeys, parts.leases.drop_left_claims),
            Operation.RESUBMIT: answering(ResubmitRequest, rerun.resubmit),
            Operation.RETRY_NOW: answering(TaskKeys, requests.retry_now),
            Operation.GIVE_UP: answering(TaskKeys, requests.give_up),
            Operation.RESUME_TASKS: answering(TaskKeys, requests.resume_tasks),
            Operation.CANCEL_TASKS: answering(TaskKeys, requests.cancel_tasks),
            Operation.RESUME_BATCHES: answering(ResumeRequest, requests.resume_batches),
            Operation.CANCEL_BATCHES: answering(CancelRequest, requests.cancel_batches),
            Operation.GET_CALL: answering(CallRequest, requests.call),
            Operation.GET_LEDGER: answering(LedgerRequest, requests.ledger_delta),
            Operation.FLUSH: answering(EmptyMessage, requests.flush),
            Operation.BLOCKING_PAUSES: answering(TaskKeys, requests.blocking_pauses),
            Operation.STATUS: answering(EmptyMessage, requests.status),
            Operation.SCALE: answering(ScaleRequest, scaling.scale),
            Operation.ADAPT: answering(AdaptRequest, scaling.adapt),
            Operation.STOP: answering(EmptyMessage, lambda _: parts.stop.set()),
        }
    )
