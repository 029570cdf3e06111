"""Kept results, from `map` to the last value, against reading the same values from diskcache."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import diskcache

from benchmarks.contenders import our_session
from benchmarks.measure import Benchmark, Budget
from scalable_nb import cacheable


def benchmark(hits: int = 100_000) -> Benchmark:
    """Values per second.

    Parameters
    ----------
    hits : int
        How many there are in one measurement.
    """
    return Benchmark(
        name="hits",
        summary=f"{hits:,} kept results by client.map(...).results(), against bare diskcache reads",
        unit="values/s",
        budget=Budget(must=0.5, wanted=0.9),
        ours=partial(_measure_ours, hits),
        plain=partial(_measure_plain, hits),
    )


def _value(number: int) -> dict[str, Any]:
    return {"id": number, "series": [number * 0.5] * 50}


def _measure_ours(hits: int) -> float:
    with our_session() as live:
        kept = cacheable(_value)
        for number in range(hits):
            kept(number)
        live.client.map(kept, range(200)).results()  # imports are not what is measured
        started_at = time.perf_counter()
        futures = live.client.map(kept, range(hits))
        results = futures.results()
        duration_s = time.perf_counter() - started_at
    assert results[-1] == _value(hits - 1)
    return hits / duration_s


def _measure_plain(hits: int) -> float:
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-") as folder,
        diskcache.Cache(str(Path(folder)), eviction_policy="none", size_limit=1 << 40) as cache,
    ):
        with cache.transact():
            for number in range(hits):
                cache[f"value-{number}"] = _value(number)
        started_at = time.perf_counter()
        results = [cache[f"value-{number}"] for number in range(hits)]
        duration_s = time.perf_counter() - started_at
    assert results[-1] == _value(hits - 1)
    return hits / duration_s
