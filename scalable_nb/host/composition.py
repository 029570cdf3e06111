"""Builds the host's objects: all its parts are constructed here, and connected by arguments."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from scalable_nb.dask_adapter.scheduler import SchedulerAdapter
from scalable_nb.host.client_requests import ClientRequests
from scalable_nb.host.final_flush import FlushReport, flush_wanted_results
from scalable_nb.host.notices import Notices
from scalable_nb.host.tasks.at_most_once import AtMostOnceGuard
from scalable_nb.host.tasks.attempt_failures import AttemptFailures
from scalable_nb.host.tasks.batch_breakers import BatchBreakers
from scalable_nb.host.tasks.client_leases import ClientLeases
from scalable_nb.host.tasks.executing_tasks import ExecutingTasks
from scalable_nb.host.tasks.native_tasks import NativeTasks
from scalable_nb.host.tasks.parked_tasks import ParkedTasks
from scalable_nb.host.tasks.placement import TaskPlacement
from scalable_nb.host.tasks.revocations import Revocations
from scalable_nb.host.tasks.run_recorder import RunRecorder
from scalable_nb.host.tasks.task_registry import TaskRegistry, TaskStates
from scalable_nb.host.tasks.task_rerun import TaskRerun
from scalable_nb.host.tasks.tracker import TaskTracker
from scalable_nb.host.tasks.worker_losses import WorkerLosses
from scalable_nb.host.workers.demand import Durations, runnable_by_component
from scalable_nb.host.workers.job_losses import JobLosses
from scalable_nb.host.workers.job_monitor import JobMonitor
from scalable_nb.host.workers.larger_workers import LargerWorkers
from scalable_nb.host.workers.replacement import ReplacementLimits, WorkerReplacement
from scalable_nb.host.workers.retirement import GracefulRetirement
from scalable_nb.host.workers.scaling import Scaling
from scalable_nb.protocol.operations import REVOCATION_ANSWER
from scalable_nb.targets.desired_workers import DesiredWorkers
from scalable_nb.targets.fleet import Fleet


@dataclass(frozen=True)
class HostParts:
    """The objects of a host that handle messages, or that its process or a test calls.

    Attributes
    ----------
    stop : asyncio.Event
        Set when the host is to end.
    flush_results : callable
        Writes the results that are still wanted into the run folder.
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
    requests: ClientRequests
    tracker: TaskTracker
    flush_results: Callable[[], Awaitable[FlushReport | None]]


def compose(
    fleet: Fleet,
    recorder: RunRecorder,
    results: Path,
    *,
    desired: dict[str, DesiredWorkers],
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
    desired : dict of str to DesiredWorkers
        How many workers there are to be at first, by kind.
    replacement_limits : ReplacementLimits
    max_identical_failures : int
        Equal failures in a row that pause a batch; 0: never.
    host_job : callable
        Returns what is known of the batch job that this host is.
    """
    adapter, ledger, stop = SchedulerAdapter(fleet.scheduler), recorder.ledger, asyncio.Event()
    registry, notices = TaskRegistry(recorder), Notices(adapter)
    executing, leases, at_most_once = ExecutingTasks(), ClientLeases(adapter), AtMostOnceGuard()
    placement = TaskPlacement(registry, ledger, adapter, fleet.kinds)
    states = TaskStates(registry, recorder, adapter, executing, notices, placement.restrict)
    parked = ParkedTasks(adapter, states.on_unpark)
    breakers = BatchBreakers(registry, ledger, adapter, parked, notices, max_identical_failures)
    larger = LargerWorkers(fleet, adapter, placement, desired, notices)
    failures = AttemptFailures(
        registry, recorder, adapter, parked, breakers, at_most_once, on_retry=larger.consider
    )
    job_losses, monitor = _job_parts(fleet, adapter, recorder, notices)
    losses = WorkerLosses(registry, adapter, parked, at_most_once, failures, job_losses)
    revocations = Revocations(adapter, parked, losses)
    native = NativeTasks(registry, recorder, adapter, states, notices)
    rerun = TaskRerun(registry, recorder, adapter, at_most_once, placement)
    flush_results = partial(flush_wanted_results, registry, adapter, results)
    retirement = GracefulRetirement(adapter, executing, losses, stop)
    scaling = Scaling(
        fleet, desired, adapter, placement,
        WorkerReplacement(fleet, replacement_limits, notices),
        retirement,
        Durations(registry, ledger),
        recorder, notices,
        runnable_by_component=partial(runnable_by_component, ledger, adapter, parked),
        observe_jobs=monitor.observe if monitor is not None else None,
        flush_results=flush_results,
    )  # fmt: skip
    tracker = TaskTracker(
        adapter, registry, recorder, executing, leases, placement, states, parked, breakers,
        losses, revocations, native, rerun, on_batch=scaling.expect,
    )  # fmt: skip
    requests = ClientRequests(
        registry, recorder, adapter, parked, breakers, failures, leases, notices,
        jobs=monitor.jobs if monitor is not None else list,
        host_job=host_job,
    )  # fmt: skip
    parts = HostParts(
        adapter, recorder, notices, stop, registry, leases, parked, breakers, failures, losses,
        revocations, native, rerun, retirement, scaling, requests, tracker, flush_results,
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
            "scalable-batch": requests.add_batch,
            "scalable-answered": requests.add_answered,
            "scalable-reopen": rerun.reopen,
            REVOCATION_ANSWER: parts.revocations.answer,
        }
    )
    parts.adapter.register_handlers(
        {
            # Workers and nannies.
            "scalable_take_ticket": failures.acquire_permit,
            "scalable_attempt_failed": failures.attempt_failed,
            "scalable_attempt_expired": failures.attempt_expired,
            "scalable_worker_exited": parts.losses.report,
            "scalable_job_began": scaling.job_began,
            "scalable_worker_leaves": retirement.worker_leaves,
            "scalable_worker_hands_over": retirement.worker_hands_over,
            # Kernels.
            "scalable_join": parts.leases.join,
            "scalable_resubmit": rerun.resubmit,
            "scalable_retry_now": requests.retry_now,
            "scalable_give_up": requests.give_up,
            "scalable_resume": parts.breakers.resume,
            "scalable_resume_batches": requests.resume_batches,
            "scalable_cancel": requests.cancel,
            "scalable_cancel_tasks": requests.cancel_tasks,
            "scalable_call": requests.call,
            "scalable_ledger": requests.ledger_delta,
            "scalable_flush": requests.flush,
            "scalable_status": requests.status,
            "scalable_scale": scaling.scale,
            "scalable_adapt": scaling.adapt,
            "scalable_stop": parts.stop.set,
        }
    )
