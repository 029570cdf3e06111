"""Workers and nannies of Dask with public hooks, and the options of ``dask worker``.

The links lead to distributed 2026.8.0.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from distributed import Nanny, Worker
from distributed.core import Status
from tornado.ioloop import PeriodicCallback

_UP = (Status.init, Status.starting, Status.running)


class NannyHooks(Nanny):
    """A nanny whose subclass decides what follows when its worker process ends.

    A subclass overrides `on_worker_exit` and `may_restart`. As they are, the nanny does what
    Dask's does.
    """

    # --- hooks -------------------------------------------------------------------------

    def on_worker_exit(self, exit_code: int) -> None:
        """Take note that the worker process ended; called in the event loop, before all else."""

    async def may_restart(self) -> bool:
        """Return whether the nanny continues after its worker process ended.

        Dask restarts the process, unless the nanny is about to close.
        """
        return True

    # --- what a subclass calls ---------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """Whether the nanny has a worker process, or will."""
        return self.status in _UP

    def register_handlers(self, handlers: Mapping[str, Callable[..., Any]]) -> None:
        """Register functions that the scheduler calls and awaits."""
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/core.py#L266
        self.handlers.update(handlers)

    def call_periodically(
        self, name: str, interval_s: float, function: Callable[[], Awaitable[None]]
    ) -> None:
        """Call a function at an interval from the nanny's start to its end."""
        # Dask starts and stops these callbacks with the nanny.
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/worker_memory.py#L387
        self.periodic_callbacks[name] = PeriodicCallback(function, interval_s * 1000)

    def exceeded_memory(self, pid: int) -> bool:
        """Return whether Dask terminated a worker process because of its memory."""
        # Dask publishes an event about it, with the address of the worker and not of the nanny.
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/worker_memory.py#L416
        return pid == self.memory_manager._last_terminated_pid

    # --- what Dask calls ---------------------------------------------------------------

    def _on_worker_exit_sync(self, exitcode: int) -> None:
        # Plugins of a nanny learn only of its own start and end.
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/nanny.py#L511
        self.on_worker_exit(exitcode)
        super()._on_worker_exit_sync(exitcode)

    async def _on_worker_exit(self, exitcode: int) -> None:
        # https://github.com/dask/distributed/blob/2026.8.0/distributed/nanny.py#L520
        if await self.may_restart():
            await super()._on_worker_exit(exitcode)


# --- in a worker process ---------------------------------------------------------------


def register_stream_handler(worker: Worker, message: str, handler: Callable[..., Any]) -> None:
    """Register a function for a message of the scheduler."""
    # Plugins of a worker see its transitions, not its messages.
    # https://github.com/dask/distributed/blob/2026.8.0/distributed/worker.py#L700
    worker.stream_handlers[message] = handler


def send_to_scheduler(worker: Worker, message: dict[str, Any]) -> None:
    """Send a message for one of the scheduler's stream handlers."""
    # https://github.com/dask/distributed/blob/2026.8.0/distributed/worker.py#L1058
    worker.batched_send(message)


def will_start(worker: Worker, key: Any, run_id: int) -> bool:
    """Return whether a thread may have an attempt that the scheduler has taken back."""
    # A task taken back while a thread has it is ``cancelled`` and not forgotten.
    # https://github.com/dask/distributed/blob/2026.8.0/distributed/worker_state_machine.py#L2112
    ts = worker.state.tasks.get(key)
    return ts is not None and ts.state == "cancelled" and ts.run_id == run_id


# --- the command of a worker job -------------------------------------------------------


def parse_worker_options(words: list[str]) -> dict[str, Any]:
    """Parse the words that follow ``dask worker``.

    Returns
    -------
    dict
        All options by the names of click's parameters, defaults included.
    """
    # dask-jobqueue writes these options, and Dask parses them only to start workers itself.
    # https://github.com/dask/distributed/blob/2026.8.0/distributed/cli/dask_worker.py#L40
    from distributed.cli import dask_worker

    return dask_worker.main.make_context("scalable-worker", words).params


def split_ports(options: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """Divide the port ranges of the options among nannies, as arguments of each."""
    # https://github.com/dask/distributed/blob/2026.8.0/distributed/cli/dask_worker.py#L458
    from distributed.cli import dask_worker

    return dask_worker._apportion_ports(options["worker_port"], options["nanny_port"], count, True)
