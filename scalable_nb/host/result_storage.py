"""Have workers store results that only their memory holds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scalable_nb.cache.keys import own_result_key
from scalable_nb.cache.store import ResultStore
from scalable_nb.dask_adapter.scheduler import SchedulerAdapter
from scalable_nb.host.notices import Notices
from scalable_nb.host.tasks.task import TrackedTask
from scalable_nb.host.tasks.task_registry import TaskRegistry
from scalable_nb.protocol.messages import StoreRequest
from scalable_nb.worker.result_cache import write_results

#: Size of all results together up to which they are written at the end of the host.
LIMIT_BYTES: Final = 4 << 30

#: Has claims on the results that are being written.
STORING: Final = "scalable-storing"


@dataclass(frozen=True)
class FlushReport:
    """The outcome of storing the results that were still wanted.

    Attributes
    ----------
    stored : int
        Results that were written.
    left_out : int
        Results beyond the limit.
    problems : int
        Results that could not be written.
    """

    stored: int
    left_out: int
    problems: int

    def __str__(self) -> str:
        parts = [f"{self.stored:,} results were still wanted and are kept in the run folder"]
        if self.left_out:
            parts.append(f"{self.left_out:,} beyond {LIMIT_BYTES / 1e9:.3g} GB are not")
        if self.problems:
            parts.append(f"{self.problems:,} could not be written")
        return ", ".join(parts)


class ResultStorage:
    """Results of tasks that do not store them themselves, in the folder of the run.

    Parameters
    ----------
    registry : TaskRegistry
    adapter : SchedulerAdapter
    notices : Notices
    folder : Path
        Of the results; each is stored by its task's own key.
    """

    def __init__(
        self, registry: TaskRegistry, adapter: SchedulerAdapter, notices: Notices, folder: Path
    ) -> None:
        self._registry = registry
        self._adapter = adapter
        self._notices = notices
        self._folder = folder
        self._waiting: dict[Any, TrackedTask] = {}
        self._is_writing = False

    def request(self, client: str, message: StoreRequest) -> None:
        """Store the results of tasks: those in memory now, others when their tasks succeed."""
        for key in message.keys:
            tracked, ts = self._registry.get(key), self._adapter.tasks.get(key)
            if tracked is None or ts is None or tracked.has_stored_result:
                continue
            tracked.store_limit_bytes = message.limit_bytes
            tracked.runs_to_end = True
            if ts.who_has:
                self.on_success(tracked)

    def on_success(self, tracked: TrackedTask) -> None:
        """Store a result that was requested; its task has just succeeded."""
        # The last claim may go before the worker has written it.
        self._adapter.hold([self._adapter.tasks[tracked.key]], STORING)
        self._waiting[tracked.key] = tracked
        if not self._is_writing:
            self._is_writing = True
            self._adapter.call_soon(self._write_waiting)

    async def flush_wanted(self, limit_bytes: int = LIMIT_BYTES) -> FlushReport | None:
        """Store the results that are still wanted, up to a size of all together.

        Returns
        -------
        FlushReport or None
            None if nothing is wanted.
        """
        wanted: list[Any] = []
        room_bytes, left_out = limit_bytes, 0
        for key, tracked in self._registry.items():
            ts = self._adapter.tasks.get(key)
            if ts is None or not ts.who_wants or not ts.who_has or tracked.has_stored_result:
                continue
            nbytes = ts.get_nbytes()
            if nbytes > room_bytes:
                left_out += 1
                continue
            room_bytes -= nbytes
            wanted.append(key)
        if not wanted and not left_out:
            return None
        stored = await self._write(dict.fromkeys(wanted))
        return FlushReport(len(stored), left_out, len(wanted) - len(stored))

    async def store_of(self, worker: str, limits_bytes: Mapping[Any, int | None]) -> set[Any]:
        """Let a worker write results that it holds; return the keys of those that were written.

        Parameters
        ----------
        worker : str
            Its address.
        limits_bytes : mapping
            Key -> size up to which the result is written; None: any.
        """
        await self._adapter.run_on_worker(worker, write_results, str(self._folder), limits_bytes)
        # Found by their files: an answer of a worker would have to be unpickled here.
        names = {own_result_key(key): key for key in limits_bytes}
        found = await asyncio.to_thread(ResultStore(self._folder).contained, set(names))
        return {names[each] for each in found}

    async def _write_waiting(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, {}
                limits_bytes = {key: each.store_limit_bytes for key, each in waiting.items()}
                try:
                    stored = await self._write(limits_bytes)
                finally:
                    self._adapter.let_go(waiting, STORING)
                for key in stored:
                    waiting[key].has_stored_result = True
                self._report(waiting.keys() - stored)
        finally:
            self._is_writing = False

    async def _write(self, limits_bytes: Mapping[Any, int | None]) -> set[Any]:
        """Have workers write results; return the keys of those that are stored."""
        by_worker: dict[str, dict[Any, int | None]] = {}
        for key, limit_bytes in limits_bytes.items():
            ts = self._adapter.tasks.get(key)
            if ts is not None and ts.who_has:
                by_worker.setdefault(next(iter(ts.who_has)).address, {})[key] = limit_bytes
        stored: set[Any] = set()
        for address, limits in by_worker.items():
            stored |= await self.store_of(address, limits)
        return stored

    def _report(self, keys: Iterable[Any]) -> None:
        tasks = self._adapter.tasks
        missing = [key for key in keys if key in tasks and tasks[key].who_has]
        if missing:
            label = self._registry[missing[0]].label
            self._notices.notify(
                f"The results of {len(missing):,} tasks, such as {label}, could not be stored: "
                "they are only in the memory of the workers. The reason is in the worker's log: "
                "`%scalable logs`."
            )
