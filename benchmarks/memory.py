"""How much the process that holds scheduler, ledger and journal grows with its tasks."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import psutil
from distributed import Client, wait

from benchmarks.contenders import our_session, plain_client_apart
from benchmarks.measure import Benchmark
from benchmarks.throughput import nothing


def benchmark(tasks: int = 10_000) -> Benchmark:
    """MB that the scheduler's process grows by, while all futures are held.

    Parameters
    ----------
    tasks : int
        How many tasks are submitted, done and held.
    """
    return Benchmark(
        name="memory",
        summary=f"growth of the scheduler's process by {tasks:,} finished tasks, futures held",
        unit="MB",
        budget=None,
        ours=partial(_measure_ours, tasks),
        plain=partial(_measure_plain, tasks),
    )


def _measure_ours(tasks: int) -> float:
    with our_session() as live:
        submit = partial(live.client.map, nothing, retries=3, pure=False)
        return _growth_mb(live.client, submit, tasks)


def _measure_plain(tasks: int) -> float:
    with plain_client_apart() as client:
        return _growth_mb(client, partial(client.map, nothing, pure=False), tasks)


def _growth_mb(client: Client, submit: Callable[[range], Any], tasks: int) -> float:
    scheduler = psutil.Process(client.run_on_scheduler(os.getpid))
    wait(list(submit(range(1_000))))  # modules and the first buffers are not what is measured
    before_bytes = scheduler.memory_full_info().uss
    futures = submit(range(tasks))
    wait(list(futures))
    return float(scheduler.memory_full_info().uss - before_bytes) / 1e6
