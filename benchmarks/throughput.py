"""How many tasks that do nothing are done in a second, from `map` to the last result."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.contenders import our_session, plain_client
from benchmarks.measure import Benchmark, Budget
from scalable_nb.widgets.task_table.widget import TaskTable


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


def nothing(number: int) -> int:
    """Return at once."""
    return number


def _measure_ours(tasks: int) -> float:
    with our_session() as live:

        def run(numbers: range) -> list[Any]:
            futures = live.client.map(nothing, numbers, retries=3, pure=False)
            table = TaskTable(live.mirror, keys=futures.keys)
            try:
                return futures.results()
            finally:
                table.close()

        return tasks_per_second(run, tasks)


def _measure_plain(tasks: int) -> float:
    with plain_client() as client:

        def run(numbers: range) -> list[Any]:
            return list(client.gather(client.map(nothing, numbers, pure=False)))

        return tasks_per_second(run, tasks)


def tasks_per_second(run: Callable[[range], list[Any]], tasks: int) -> float:
    """The pace of `run`, which takes numbers and returns them."""
    run(range(200))  # connections, imports and the first pickles are not what is measured
    started_at = time.perf_counter()
    results = run(range(tasks))
    duration_s = time.perf_counter() - started_at
    assert results == list(range(tasks))
    return tasks / duration_s
