"""Stores results that are still wanted before the host ends itself."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from scalable_nb.cache.keys import own_result_key
from scalable_nb.cache.store import ResultStore
from scalable_nb.dask_adapter.scheduler import SchedulerAdapter
from scalable_nb.host.tasks.task_registry import TaskRegistry
from scalable_nb.worker.result_cache import write_results

logger = logging.getLogger(__name__)

#: Size of all results together up to which they are written.
LIMIT_BYTES: Final = 4 << 30


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


async def flush_wanted_results(
    registry: TaskRegistry, adapter: SchedulerAdapter, folder: Path, limit_bytes: int = LIMIT_BYTES
) -> FlushReport | None:
    """Have the workers write the wanted results that only their memory holds.

    Parameters
    ----------
    registry : TaskRegistry
    adapter : SchedulerAdapter
    folder : Path
        Of the results; each is stored by its task's own key.
    limit_bytes : int
        Size of all together.

    Returns
    -------
    FlushReport or None
        None where nothing was wanted.
    """
    by_worker: dict[str, list[Any]] = {}
    room_bytes, left_out = limit_bytes, 0
    for key, tracked in registry.items():
        ts = adapter.tasks.get(key)
        if ts is None or not ts.who_wants or not ts.who_has or tracked.has_stored_result:
            continue
        nbytes = ts.get_nbytes()
        if nbytes > room_bytes:
            left_out += 1
            continue
        room_bytes -= nbytes
        by_worker.setdefault(next(iter(ts.who_has)).address, []).append(key)
    stored = 0
    for address, keys in by_worker.items():
        stored += len(await store_results_of(address, keys, adapter, folder))
    if not by_worker and not left_out:
        return None
    wanted = sum(map(len, by_worker.values()))
    return FlushReport(stored, left_out, wanted - stored)


async def store_results_of(
    worker: str, keys: Sequence[Any], adapter: SchedulerAdapter, folder: Path
) -> list[Any]:
    """Have a worker write results that it holds; return the keys of those that were written."""
    await adapter.run_on_worker(worker, write_results, str(folder), keys)
    # Known by the files: an answer of a worker would have to be unpickled here.
    stored = ResultStore(folder).contained(set(map(own_result_key, keys)))
    return [key for key in keys if own_result_key(key) in stored]
