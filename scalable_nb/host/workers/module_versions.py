"""Pass on the sources of the user's modules, and replace worker processes that have others.

A process that has imported a module keeps it. If a task needs another version, the worker takes
no more tasks, finishes the ones that it executes, and its nanny starts a new process. The results
that only it holds are written to disk before, and are loaded if a client still wants them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from distributed.scheduler import TaskState, WorkerState

from scalable_nb.cache.keys import own_result_key
from scalable_nb.dask_adapter.graphs import arguments_of
from scalable_nb.dask_adapter.scheduler import SchedulerAdapter
from scalable_nb.host.notices import Notices
from scalable_nb.host.tasks.task_registry import TaskRegistry
from scalable_nb.host.workers.retirement import GracefulRetirement
from scalable_nb.protocol.annotations import ANNOTATION
from scalable_nb.protocol.call import Call
from scalable_nb.protocol.messages import (
    ModulesDiffer,
    ModuleSources,
    ReplaceReply,
    SourcesRequest,
    WorkerMessage,
)
from scalable_nb.protocol.operations import Operation

logger = logging.getLogger(__name__)

_POLL_S: Final = 0.05


class ModuleVersions:
    """The versions of modules that tasks need.

    Parameters
    ----------
    registry : TaskRegistry
    adapter : SchedulerAdapter
    retirement : GracefulRetirement
    notices : Notices
    results : Path
        Folder for results that a replaced process held.
    write_results : callable
        As `ResultStorage.store_of`, into this folder.
    """

    def __init__(
        self,
        registry: TaskRegistry,
        adapter: SchedulerAdapter,
        retirement: GracefulRetirement,
        notices: Notices,
        results: Path,
        write_results: Callable[[str, Mapping[Any, int | None]], Awaitable[set[Any]]],
    ) -> None:
        self._registry = registry
        self._adapter = adapter
        self._retirement = retirement
        self._notices = notices
        self._results = results
        self._write_results = write_results
        self._sources: dict[str, ModuleSources] = {}
        self._leaving: set[str] = set()  # addresses of workers
        self._replaced: set[tuple[str, str]] = set()  # nanny, digest
        self._reported: set[tuple[str, tuple[str, ...]]] = set()

    def keep_sources(self, client: str, message: ModuleSources) -> None:
        """Keep the sources that a client sent before the calls that need them."""
        self._sources[message.digest] = message

    def sources(self, request: SourcesRequest) -> ModuleSources:
        """Return sources to a worker.

        Raises
        ------
        KeyError
            If no client sent them.
        """
        return self._sources[request.digest]

    def replace(self, message: ModulesDiffer) -> ReplaceReply:
        """Replace a worker process that has imported other versions than a task needs.

        Modules that it imported from their files may be the same in a new process: for these it is
        replaced once for each version.
        """
        ws = self._adapter.workers.get(message.worker)
        if ws is None or ws.address in self._leaving:
            return ReplaceReply(will_replace=True)
        mark = (ws.nanny or "", message.digest)
        is_vain = not message.is_of_calls and mark in self._replaced
        if ws.nanny is None or is_vain or _holds_data(ws):
            self._report(message)
            return ReplaceReply(will_replace=False)
        self._replaced.add(mark)
        self._leaving.add(ws.address)
        self._retirement.begin(ws.address)
        self._adapter.call_soon(self._replace, ws.address, ws.nanny)
        return ReplaceReply(will_replace=True)

    def _report(self, message: ModulesDiffer) -> None:
        tracked = self._registry.get(message.key)
        function = tracked.batch.function if tracked is not None else str(message.key)
        if (function, message.names) not in self._reported:
            self._reported.add((function, message.names))
            names = ", ".join(message.names)
            self._notices.notify(
                f"{function}: a worker has imported another version of {names} than the kernel, "
                "and a new process would too, or cannot be started. The results are returned and "
                "not cached. `%scalable stop` and a new session start all processes again."
            )

    async def _replace(self, worker: str, nanny: str) -> None:
        while not self._retirement.is_idle(worker):
            await asyncio.sleep(_POLL_S)
            self._retirement.begin(worker)
        try:
            await self._store_results(worker)
            message = WorkerMessage(worker).to_wire()
            await self._adapter.call_nanny(nanny, Operation.END_PROCESS.value, **message)
        except OSError:
            logger.exception("%s cannot be replaced", worker)
            self._retirement.call_off(worker)
        self._leaving.discard(worker)

    async def _store_results(self, worker: str) -> None:
        """Write the wanted results that only one worker holds, and let their tasks load them."""
        ws = self._adapter.workers.get(worker)
        held = ws.has_what if ws is not None else ()
        tasks = {ts.key: ts for ts in held if _is_last(ts) and self._must_store(ts)}
        if not tasks:
            return
        for key in await self._write_results(worker, dict.fromkeys(tasks)):
            _load_from(tasks[key], self._results)

    def _must_store(self, ts: TaskState) -> bool:
        tracked = self._registry.get(ts.key)
        return tracked is not None and not tracked.is_native and not tracked.has_stored_result


def _is_last(ts: TaskState) -> bool:
    """Return whether a result is wanted and only one worker holds it."""
    return len(ts.who_has or ()) == 1 and bool(ts.who_wants or ts.waiters)


def _holds_data(ws: WorkerState) -> bool:
    """Return whether a worker has scattered data or actors that no task can make again."""
    return bool(ws.actors) or any(_is_last(ts) and ts.run_spec is None for ts in ws.has_what)


def _load_from(ts: TaskState, folder: Path) -> None:
    """Let a task that runs again load its stored result."""
    for call in arguments_of(ts.run_spec):
        if isinstance(call, Call):
            call.result_key = own_result_key(ts.key)
    annotations: dict[str, Any] = ts.annotations or {}
    wire = {**annotations.get(ANNOTATION, {}), "store": str(folder), "recompute": False}
    ts.annotations = {**annotations, ANNOTATION: wire}
