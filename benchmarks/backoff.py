"""Whether tasks that wait for their retry slow down the others."""

from __future__ import annotations

import time
from functools import partial
from typing import Any, NoReturn

from benchmarks.contenders import our_session
from benchmarks.measure import Benchmark, Budget
from benchmarks.throughput import nothing, tasks_per_second
from scalable_nb import RetryPolicy, ScalableSession

_WAITING_TASKS = 2_000
_LONG_S = 3_600.0


def benchmark(tasks: int = 10_000) -> Benchmark:
    """Tasks per second beside 2,000 tasks in backoff, and without them.

    Parameters
    ----------
    tasks : int
        How many tasks are done in one measurement.
    """
    return Benchmark(
        name="backoff",
        summary=f"{tasks:,} no-op tasks beside {_WAITING_TASKS:,} that wait for their retry",
        unit="tasks/s",
        budget=Budget(must=0.9, wanted=0.98),
        ours=partial(_measure, tasks, _WAITING_TASKS),
        plain=partial(_measure, tasks, 0),
        against="the same alone",
    )


def _fail(number: int) -> NoReturn:
    raise ConnectionError(f"no answer to {number}")


def _measure(tasks: int, waiting_tasks: int) -> float:
    with our_session() as live:
        waiting = live.client.map(
            _fail,
            range(waiting_tasks),
            retries=RetryPolicy(1, base_s=_LONG_S, max_s=_LONG_S, jitter=0),
        )
        _wait_until_in_backoff(live, waiting_tasks)

        def run(numbers: range) -> list[Any]:
            return live.client.map(nothing, numbers, retries=3, pure=False).results()

        pace = tasks_per_second(run, tasks)
        live.client.cancel(waiting)
        return pace


def _wait_until_in_backoff(live: ScalableSession, tasks: int, timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while (waiting := live.status().counts["retrying"]) != tasks:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{waiting} of {tasks} tasks wait for their retry")
        time.sleep(0.1)
