"""How many tasks that do nothing are done in a second, from `map` to the last result."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from distributed import Client, LocalCluster

from benchmarks.measure import Benchmark, Budget
from scalable_nb import ScalableSession
from scalable_nb.widgets.task_table import TaskTable

WORKERS = 2
MANIFEST = f"""
version: 1
project: {{name: benchmark}}
targets:
  local: {{provider: local, max_workers: {WORKERS}, threads_per_worker: 1}}
components:
  default: {{}}
"""


def benchmark(tasks: int = 10_000) -> Benchmark:
    """Tasks per second, each side with a cluster that is fresh and warm.

    Parameters
    ----------
    tasks : int
        How many there are in one measurement.
    """
    return Benchmark(
        name="throughput",
        summary=f"{tasks:,} no-op tasks with retries=3, journal on, table open",
        unit="tasks/s",
        budget=Budget(must=0.85, wanted=1.0),
        ours=partial(_measure_ours, tasks),
        plain=partial(_measure_plain, tasks),
    )


def _nothing(number: int) -> int:
    return number


def _measure_ours(tasks: int) -> float:
    with session() as live:

        def run(numbers: range) -> list[Any]:
            futures = live.client.map(_nothing, numbers, retries=3, pure=False)
            table = TaskTable(live.mirror, keys=futures.keys)
            try:
                return futures.results()
            finally:
                table.close()

        return _tasks_per_second(run, tasks)


def _measure_plain(tasks: int) -> float:
    with plain_cluster() as client:

        def run(numbers: range) -> list[Any]:
            return list(client.gather(client.map(_nothing, numbers, pure=False)))

        return _tasks_per_second(run, tasks)


def _tasks_per_second(run: Callable[[range], list[Any]], tasks: int) -> float:
    run(range(200))  # connections, imports and the first pickles are not what is measured
    started_at = time.perf_counter()
    results = run(range(tasks))
    duration_s = time.perf_counter() - started_at
    assert results == list(range(tasks))
    return tasks / duration_s


@contextmanager
def plain_cluster() -> Iterator[Client]:
    """A client of plain Dask with the same workers."""
    with (
        LocalCluster(
            n_workers=WORKERS,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,  # what its workers say when it closes
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def session() -> Iterator[ScalableSession]:
    """A session with all its workers, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder, chdir(folder):
        Path("scalable.yaml").write_text(MANIFEST)
        with ScalableSession.from_yaml() as live:
            live.client.wait_for_workers(WORKERS)
            yield live
