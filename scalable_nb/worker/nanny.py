"""A nanny that enforces time limits and reports why its worker died."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import time
from typing import Any, Final

import psutil
from distributed.utils_comm import retry

from scalable_nb.dask_adapter.connection_gate import limit_handshakes
from scalable_nb.dask_adapter.worker_hooks import NannyHooks
from scalable_nb.protocol.exit_report import ExitCause, ExitReport
from scalable_nb.protocol.messages import (
    AttemptExpired,
    ExpiryReply,
    LeaveReply,
    WorkerExited,
    WorkerMessage,
)
from scalable_nb.protocol.operations import Operation
from scalable_nb.protocol.version import ANNOUNCEMENT
from scalable_nb.protocol.wire import Message, answering, call_remote
from scalable_nb.worker.attempt_registry import (
    REGISTRY_VARIABLE,
    Owner,
    RegisteredAttempt,
    create_registry,
    read_attempts,
    read_executing,
    read_owner,
)
from scalable_nb.worker.peak_memory import OomKills
from scalable_nb.worker.plugin import announce_version
from scalable_nb.worker.process_log import LOG_VARIABLE, WorkerLog

logger = logging.getLogger(__name__)

_WATCH_INTERVAL_S: Final = 0.2

#: A worker process that is stopped (SIGSTOP, a debugger, a frozen cgroup) for longer is ended.
STOPPED_GRACE_S: Final = 10.0

#: A scheduler that ends takes no more messages; the job must not wait for it.
_ANNOUNCE_TIMEOUT_S: Final = 1.0
_HAND_OVER_TIMEOUT_S: Final = 10.0

#: Failed starts without a pause before the next one; the pauses double after them.
_FREE_STARTS: Final = 3
_LONGEST_PAUSE_S: Final = 60.0

#: Why a worker process goes that does not hear of the scheduler any more, or that the
#: scheduler does not know any more (distributed 2026.8.0).
_CUT_OFF: Final = (
    "worker-handle-scheduler-connection-broken",
    "worker-heartbeat-missing",
    "worker-heartbeat-error",
)
_SILENT: Final = "check-worker-ttl"


class ScalableNanny(NannyHooks):
    """Dask's nanny with a watch over the attempts that its worker process is executing.

    It calls two operations of the host: `Operation.ATTEMPT_EXPIRED` when an attempt exceeds its
    limit (the worker process is killed after the reply, so the error is visible first), and
    `Operation.WORKER_EXITED` when the process ended by itself.

    A worker process that lost its connection is ended at once and started again. Dask would
    let it finish what it is executing, for nobody, and close the nanny with it.

    Parameters
    ----------
    log_folder : str, optional
        Where the worker's log goes; without it, it goes where the nanny's own goes.
    *args, **kwargs
        As for `distributed.Nanny`.
    """

    def __init__(self, *args: Any, log_folder: str | None = None, **kwargs: Any) -> None:
        announcement = {ANNOUNCEMENT: announce_version}
        super().__init__(*args, startup_information=announcement, **kwargs)
        self._registry = Path(self.local_directory) / f"attempts-{os.getpid()}-{id(self):x}"
        self.env[REGISTRY_VARIABLE] = str(self._registry)
        self._log = WorkerLog(Path(log_folder) / f"{self.name}.log") if log_folder else None
        if self._log is not None:
            self.env[LOG_VARIABLE] = str(self._log.path)
        self._oom_kills = OomKills()
        self._peak_bytes = 0
        self._killed: dict[int, ExitCause] = {}  # pid -> why we ended it
        self._stopped_since: float | None = None
        self._unreported_exit: int | None = None
        self._failed_starts = 0
        self._reporting = asyncio.Lock()
        self.register_handlers(
            {
                Operation.WORKER_LOST: answering(WorkerMessage, self.worker_lost),
                Operation.END_PROCESS: answering(WorkerMessage, self.end_process),
            }
        )
        self.call_periodically("scalable-watch", _WATCH_INTERVAL_S, self._watch)

    async def instantiate(self) -> Any:
        """Start a worker process with an empty registry."""
        limit_handshakes(self)
        self._registry.parent.mkdir(parents=True, exist_ok=True)
        create_registry(self._registry)
        if self._log is not None:
            self._log.begin()
        self._peak_bytes = 0
        return await super().instantiate()

    async def close(self, *args: Any, **kwargs: Any) -> Any:
        """Close as Dask does and leave no file."""
        await self._report_exit()  # a worker that dies during the first start ends its nanny
        result = await super().close(*args, **kwargs)
        owner = read_owner(self._registry)
        if owner is not None:
            _kill_group(owner.pid)
        self._registry.unlink(missing_ok=True)
        return result

    def close_gracefully(self, reason: str = "nanny-close-gracefully") -> None:
        """Close with the worker process, unless that goes only because it was cut off."""
        if reason in _CUT_OFF and self.is_up and self.pid is not None:
            self._kill(self.pid, ExitCause.CUT)
        else:
            super().close_gracefully(reason)

    def worker_lost(self, message: WorkerMessage) -> None:
        """Kill a worker that the scheduler lost the connection to."""
        self._kill_worker(message.worker, ExitCause.CUT)

    def end_process(self, message: WorkerMessage) -> None:
        """Kill an idle worker process, so that a new one is started."""
        self._kill_worker(message.worker, ExitCause.REPLACED)

    def _kill_worker(self, worker: str, cause: ExitCause) -> None:
        owner = read_owner(self._registry)
        if owner is not None and owner.address == worker and owner.pid == self.pid:
            self._kill(owner.pid, cause)

    async def kill(self, timeout: float = 5, reason: str = "nanny-kill") -> None:
        """Kill the worker process as Dask does, and note the cause."""
        if reason.startswith(_SILENT) and self.pid is not None:
            self._killed[self.pid] = ExitCause.CUT
        await super().kill(timeout=timeout, reason=reason)

    def _exit_report(self, cause: ExitCause, **values: Any) -> ExitReport:
        """Return the running and recent attempts, and how the process ended."""
        return ExitReport(
            cause,
            attempts={
                attempt.run_id: (attempt.started_at, attempt.ended_at or None)
                for attempt in read_attempts(self._registry)
            },
            memory_bytes=self._peak_bytes or None,
            **values,
        )

    def is_executing(self) -> bool:
        """Return whether the worker process is executing any attempt."""
        return bool(read_executing(self._registry))

    async def announce_end(self) -> bool:
        """Report to the scheduler that the batch system is about to stop the job.

        Returns
        -------
        bool
            Whether what is executing should be waited for. Not where nobody answers, or the
            session ends anyway.
        """
        limit_bytes = self.memory_manager.memory_limit
        report = self._exit_report(ExitCause.TERMINATED, memory_limit_bytes=limit_bytes)
        reply = await self._call_scheduler(
            Operation.WORKER_LEAVES,
            lambda worker: WorkerExited(worker, report),
            _ANNOUNCE_TIMEOUT_S,
        )
        return reply is not None and LeaveReply.from_wire(reply).may_finish

    async def hand_over(self) -> None:
        """Let the scheduler move the results of the worker to others, if there are any."""
        await self._call_scheduler(Operation.WORKER_HANDS_OVER, WorkerMessage, _HAND_OVER_TIMEOUT_S)

    async def _call_scheduler(
        self, operation: Operation, message_of: Callable[[str], Message], timeout_s: float
    ) -> Any:
        owner = read_owner(self._registry)
        if owner is None or not self.is_up:
            return None
        asked = call_remote(self.scheduler, operation, message_of(owner.address))
        try:
            return await asyncio.wait_for(asked, timeout_s)
        except (OSError, TimeoutError):
            logger.info("no answer of the scheduler to %s", operation)
            return None

    def log_event(self, topic: Any, msg: Any) -> Any:
        """Learn how much memory the worker used when Dask's own watch ended it."""
        if topic == "worker-restart-memory":
            self._peak_bytes = max(self._peak_bytes, msg["rss"])
        return super().log_event(topic, msg)

    async def _watch(self) -> None:
        self._measure()
        now = time()
        executing = read_executing(self._registry)
        for attempt in executing:
            limit_s = attempt.timeout_s
            if limit_s is not None and now - attempt.started_at > limit_s:
                try:
                    await self._end(attempt, now - attempt.started_at, executing)
                except OSError:  # the connection broke: asked again at the next look
                    logger.info("could not ask the scheduler about %s", attempt.name)

    def _measure(self) -> None:
        if self.pid is None:
            return
        try:
            process = psutil.Process(self.pid)
            self._peak_bytes = max(self._peak_bytes, process.memory_info().rss)
            is_stopped = process.status() == psutil.STATUS_STOPPED
        except psutil.Error:
            logger.debug("worker process %s ended while it was measured", self.pid)
            return
        if not is_stopped:
            self._stopped_since = None
        elif self._stopped_since is None:
            self._stopped_since = time()
        elif time() - self._stopped_since > STOPPED_GRACE_S:
            self._kill(self.pid, ExitCause.STOPPED)

    def _kill(self, pid: int, cause: ExitCause) -> None:
        self._killed[pid] = cause
        self._stopped_since = None
        _kill_group(pid)

    async def _end(
        self, attempt: RegisteredAttempt, duration_s: float, executing: list[RegisteredAttempt]
    ) -> None:
        pid = self.pid
        if pid is None or pid in self._killed:
            return
        expired = AttemptExpired(
            name=attempt.name,
            worker=self.worker_address,
            run_id=attempt.run_id,
            started_at=attempt.started_at,
            duration_s=duration_s,
            memory_bytes=self._peak_bytes,
            neighbours=tuple(other.name for other in executing if other != attempt),
        )
        answer = await call_remote(self.scheduler, Operation.ATTEMPT_EXPIRED, expired)
        reply = ExpiryReply.from_wire(answer)
        # An attempt that the scheduler knows nothing of may have ended in this very moment.
        is_there = reply.is_settled or attempt in read_executing(self._registry)
        if reply.must_kill and is_there and pid == self.pid:
            self._kill(pid, ExitCause.TIMEOUT)

    def on_worker_exit(self, exit_code: int) -> None:
        """Remember the exit code, unless the worker process was closed on purpose."""
        if self.is_up:
            self._unreported_exit = exit_code

    async def may_restart(self) -> bool:
        """Report how the worker process ended, and close if there is no host to report to."""
        if await self._report_exit():
            has_started = read_owner(self._registry) is not None
            self._failed_starts = 0 if has_started else self._failed_starts + 1
            await asyncio.sleep(restart_pause_s(self._failed_starts))
            return True
        # A host that is gone does not come back: its job must not wait for it.
        await self.close(timeout=2, reason="scalable-scheduler-gone")
        return False

    async def _report_exit(self) -> bool:
        """Tell the scheduler of an end that nobody wanted, once; says whether it is there."""
        async with self._reporting:  # closing must not cut off a report on its way
            exit_code, self._unreported_exit = self._unreported_exit, None
            owner = read_owner(self._registry)
            # Otherwise it was meant to end, or died before it could get tasks.
            if exit_code is not None and owner is not None:
                return await self._report(owner, exit_code)
        return True

    async def _report(self, owner: Owner, exit_code: int) -> bool:
        _kill_group(owner.pid)  # what the tasks had started must not outlive the worker
        cause = self._killed.pop(owner.pid, ExitCause.EXIT)
        limit_bytes = self.memory_manager.memory_limit
        is_sigkill = exit_code == -signal.SIGKILL
        if self.exceeded_memory(owner.pid):
            cause = ExitCause.MEMORY
        elif cause is ExitCause.EXIT and is_sigkill and self._oom_kills.has_grown():
            cause = ExitCause.KERNEL
            limit_bytes = self._oom_kills.limit_bytes() or limit_bytes
        report = self._exit_report(
            cause,
            exit_code=exit_code,
            memory_limit_bytes=limit_bytes,
            log_excerpt=self._log.excerpt() if self._log is not None else "",
        )
        return await self._deliver(WorkerExited(owner.address, report))

    async def _deliver(self, message: WorkerExited) -> bool:
        """Tell the scheduler how a worker process ended; says whether a scheduler is there."""

        async def report() -> None:
            try:
                await call_remote(self.scheduler, Operation.WORKER_EXITED, message)
            except OSError as error:
                if _is_refused(error):
                    raise _NoHandlerError from error
                raise

        try:
            # Where the network was cut, it may be there again in a moment.
            await retry(report, count=4, delay_min=0.1, delay_max=1.0)
        except (OSError, _NoHandlerError):
            logger.exception("the scheduler cannot be told of the end of %s", message.worker)
            return False
        except Exception:
            # Whatever went wrong there, the worker must be restarted here.
            logger.exception("could not tell the scheduler of the end of %s", message.worker)
        return True


def restart_pause_s(failed_starts: int) -> float:
    """Return the seconds to wait before a worker process is started again.

    Parameters
    ----------
    failed_starts : int
        How many processes in a row ended before they could get tasks.
    """
    beyond = failed_starts - _FREE_STARTS
    return min(2.0 ** (beyond - 1), _LONGEST_PAUSE_S) if beyond > 0 else 0.0


class _NoHandlerError(Exception):
    """The scheduler's machine is there, and the scheduler is not."""


def _is_refused(error: BaseException | None) -> bool:
    """Return whether a refused connection caused this error."""
    while error is not None and not isinstance(error, ConnectionRefusedError):
        error = error.__cause__
    return error is not None


def _kill_group(pid: int) -> None:
    """End a worker process and every process that its tasks started.

    Each worker leads a process group (see `ScalableWorkerPlugin`); one that died before it could
    become a leader has started nothing.
    """
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
