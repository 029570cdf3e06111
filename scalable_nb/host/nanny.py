"""A nanny that ends attempts at their time limit and says what its worker died of."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from time import time
from typing import Any, Final

import psutil
from distributed import Nanny
from distributed.compatibility import PeriodicCallback
from distributed.core import Status

from scalable_nb.host.slots import SLOTS_VARIABLE, RunningAttempt, create_slots, read_slots

logger = logging.getLogger(__name__)

_WATCH_INTERVAL_S: Final = 0.2


class ScalableNanny(Nanny):
    """Dask's nanny with a watch over the attempts that its worker process is executing.

    Two things reach the scheduler's handlers: ``scalable_attempt_expired`` when an attempt
    exceeds its limit (the worker process is killed once the answer is there, so the error
    is visible first), and ``scalable_worker_exited`` when the process ended by itself.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._slots = Path(self.local_directory) / f"slots-{os.getpid()}-{id(self):x}"
        self.env[SLOTS_VARIABLE] = str(self._slots)
        self._worker_pid: int | None = None
        self._last_address = ""
        self._peak_bytes = 0
        self._expired: set[RunningAttempt] = set()
        self._killed_for_timeout: int | None = None
        self.periodic_callbacks["scalable-watch"] = PeriodicCallback(
            self._watch, _WATCH_INTERVAL_S * 1000
        )

    async def instantiate(self) -> Any:
        """Start a worker process with an empty file of slots."""
        self._slots.parent.mkdir(parents=True, exist_ok=True)
        create_slots(self._slots)
        self._peak_bytes = 0
        self._expired.clear()
        status = await super().instantiate()
        # Both are gone from the nanny by the time it learns of the process's end.
        self._worker_pid, self._last_address = self.pid, self.worker_address or ""
        return status

    async def close(self, *args: Any, **kwargs: Any) -> Any:
        """Close as Dask does and leave no file."""
        result = await super().close(*args, **kwargs)
        self._slots.unlink(missing_ok=True)
        return result

    def log_event(self, topic: Any, msg: Any) -> Any:
        """Learn how much memory the worker used when Dask's own watch ended it."""
        if topic == "worker-restart-memory":
            self._peak_bytes = max(self._peak_bytes, msg["rss"])
        return super().log_event(topic, msg)

    async def _watch(self) -> None:
        self._measure()
        now = time()
        for attempt in read_slots(self._slots):
            limit_s = attempt.timeout_s
            is_over = limit_s is not None and now - attempt.started_at > limit_s
            if is_over and attempt not in self._expired:
                self._expired.add(attempt)
                await self._end(attempt, now - attempt.started_at)

    def _measure(self) -> None:
        if self.pid is None:
            return
        try:
            self._peak_bytes = max(self._peak_bytes, psutil.Process(self.pid).memory_info().rss)
        except psutil.Error:
            logger.debug("worker process %s ended while it was measured", self.pid)

    async def _end(self, attempt: RunningAttempt, duration_s: float) -> None:
        pid = self.pid
        answer = await self.scheduler.scalable_attempt_expired(
            key=attempt.key,
            worker=self.worker_address,
            started_at=attempt.started_at,
            duration_s=duration_s,
            memory_bytes=self._peak_bytes,
        )
        if answer["kill"] and pid is not None and pid == self.pid:
            self._killed_for_timeout = pid
            os.kill(pid, signal.SIGKILL)

    async def _on_worker_exit(self, exitcode: int) -> None:
        if self.status == Status.running:  # otherwise somebody ended it on purpose
            await self._report_exit(exitcode)
        await super()._on_worker_exit(exitcode)

    async def _report_exit(self, exitcode: int) -> None:
        pid = self._worker_pid
        if pid is not None and pid == self.memory_manager._last_terminated_pid:
            cause = "memory"
        elif pid is not None and pid == self._killed_for_timeout:
            cause = "timeout"
        else:
            cause = "exit"
        try:
            await self.scheduler.scalable_worker_exited(
                worker=self._last_address,
                cause=cause,
                exit_code=exitcode,
                executing=[attempt[:2] for attempt in read_slots(self._slots)],
                memory_bytes=self._peak_bytes or None,
                memory_limit_bytes=self.memory_manager.memory_limit,
            )
        except Exception:
            # Whatever went wrong there, the worker must be restarted here.
            logger.exception("could not tell the scheduler of the end of worker %s", pid)
