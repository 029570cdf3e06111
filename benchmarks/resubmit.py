"""A run of which one task in a hundred failed: resubmitted, against all of it in plain Dask."""

from __future__ import annotations

import tempfile
import time
from contextlib import chdir
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.contenders import MANIFEST, WORKERS, plain_client
from benchmarks.measure import Benchmark, Budget
from scalable_nb import FutureList, ScalableSession, cacheable, resubmit

_FAILED_ONE_IN = 100


def benchmark(tasks: int = 10_000) -> Benchmark:
    """Whole runs per second, the start of the session not counted.

    Parameters
    ----------
    tasks : int
        Of the run.
    """
    return Benchmark(
        name="resubmit",
        summary=f"{tasks:,} tasks, 1 % failed, the rest kept: resubmit(run=...) by another host",
        unit="runs/s",
        budget=Budget(must=10.0, wanted=50.0),
        ours=partial(_measure_ours, tasks),
        plain=partial(_measure_plain, tasks),
    )


def _work(number: int, marker: str) -> int:
    if number % _FAILED_ONE_IN == 0 and not Path(marker).exists():
        raise ValueError(number)
    return number


def _measure_ours(tasks: int) -> float:
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder, chdir(folder):
        Path("scalable.yaml").write_text(MANIFEST)
        marker = Path(folder) / "repaired"
        with ScalableSession.from_yaml() as first:
            # Failures on purpose, of one kind: they are not to pause the batch.
            first.client.map(cacheable(_work), range(tasks), marker=str(marker)).partial()
            run = first.run_id
        marker.touch()
        with ScalableSession.from_yaml() as second:
            second.client.wait_for_workers(WORKERS)
            second.client.map(abs, range(-200, 0)).results()  # imports are not what is measured
            started_at = time.perf_counter()
            futures = resubmit(run=run)
            assert isinstance(futures, FutureList)
            results = futures.results()
            duration_s = time.perf_counter() - started_at
    assert results == list(range(tasks))
    return 1 / duration_s


def _measure_plain(tasks: int) -> float:
    with plain_client() as client, tempfile.TemporaryDirectory() as marker:
        client.gather(client.map(abs, range(-200, 0)))
        started_at = time.perf_counter()
        results: list[Any] = client.gather(client.map(_work, range(tasks), marker=marker))
        duration_s = time.perf_counter() - started_at
    assert results == list(range(tasks))
    return 1 / duration_s
