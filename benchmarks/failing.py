"""How many failing attempts are dealt with in a second."""

from __future__ import annotations

import time
from functools import partial
from typing import NoReturn

from distributed import wait

from benchmarks.contenders import our_session, plain_client
from benchmarks.measure import Benchmark
from scalable_nb import RetryPolicy

_RETRIES = 3


def benchmark(tasks: int = 10_000) -> Benchmark:
    """Failing attempts per second, ours recorded, plain Dask's without a trace.

    Parameters
    ----------
    tasks : int
        Of the throughput; a quarter of them fails here, each at four attempts.
    """
    failing = tasks // (_RETRIES + 1)
    return Benchmark(
        name="failing",
        summary=f"{failing:,} tasks that fail at each of {_RETRIES + 1} attempts, without waits",
        unit="attempts/s",
        budget=None,
        ours=partial(_measure_ours, failing),
        plain=partial(_measure_plain, failing),
        against="plain Dask (no record)",
    )


def _fail(number: int) -> NoReturn:
    raise ConnectionError(f"no answer to {number}")


def _measure_ours(tasks: int) -> float:
    at_once = RetryPolicy(_RETRIES, base_s=0.0, max_s=0.0)
    with our_session() as live:
        # The brake would stop a batch of which nothing succeeds.
        live.client.map(_fail, range(20), retries=at_once, max_identical_failures=0).partial()
        started_at = time.perf_counter()
        futures = live.client.map(_fail, range(tasks), retries=at_once, max_identical_failures=0)
        wait(list(futures))
        duration_s = time.perf_counter() - started_at
        counts = live.status().counts
        assert counts["failed"] == tasks + 20, counts
    return tasks * (_RETRIES + 1) / duration_s


def _measure_plain(tasks: int) -> float:
    with plain_client() as client:
        wait(client.map(_fail, range(-20, 0), retries=_RETRIES))
        started_at = time.perf_counter()
        futures = client.map(_fail, range(tasks), retries=_RETRIES)
        wait(futures)
        duration_s = time.perf_counter() - started_at
        assert {future.status for future in futures} == {"error"}
    return tasks * (_RETRIES + 1) / duration_s
