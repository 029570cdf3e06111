"""What is on record of each attempt of a task."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from counting import failing_first
from waiting import until

from scalable_nb import ScalableSession

Start = Callable[..., ScalableSession]

#: Dask estimates how far a worker's clock is from the scheduler's, and corrects by that.
_CLOCK_TOLERANCE_S = 0.1


def test_every_attempt_says_when_where_and_how_long(start: Start, folder: Path) -> None:
    """Failed and successful ones alike: start, end, waits, worker, host, process, memory."""
    session = start()
    function = failing_first(folder, 2, ConnectionError)

    def slow(x: int) -> tuple[int, int]:
        time.sleep(0.2)
        function(x)
        return os.getpid(), len(bytearray(50_000_000))

    future = session.client.submit(slow, 1, retries=3)
    pid, _ = future.result(timeout=60)
    rows = session.client.attempts(future)
    assert [row["outcome"] for row in rows] == ["failed", "failed", "succeeded"]
    assert [row["attempt"] for row in rows] == [1, 2, 3]
    assert [row.get("failure_class") for row in rows] == ["ConnectionError"] * 2 + [None]
    assert rows[-1]["pid"] == pid
    assert {row["worker"] for row in rows} <= {"worker-0", "worker-1"}
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        started_at = datetime.fromisoformat(row["started_at"] or "")
        ended_at = datetime.fromisoformat(row["ended_at"])
        spanned_s = (ended_at - started_at).total_seconds()
        assert 0.2 <= (row["duration_s"] or 0) <= spanned_s + _CLOCK_TOLERANCE_S
        assert row["host"]
        assert (row["queued_s"] or 0) >= 0
        if following:
            waited = datetime.fromisoformat(following["started_at"] or "") - ended_at
            assert waited.total_seconds() >= (row["retry_in_s"] or 0) - _CLOCK_TOLERANCE_S
    assert (rows[0]["memory_bytes"] or 0) > 20_000_000


def test_the_peak_of_a_process_is_known_soon(start: Start) -> None:
    """The memory of a successful attempt includes what its function held at its worst."""
    session = start()

    def parked(megabytes: int) -> int:
        held = bytearray(megabytes * 1_000_000)
        held[::4096] = b"x" * len(held[::4096])  # touch every page
        size = len(held)
        del held
        time.sleep(2.5)  # two heartbeats
        return size

    future = session.client.submit(parked, 150)
    assert future.result(timeout=60) == 150_000_000
    (row,) = session.client.attempts(future)
    assert (row["memory_bytes"] or 0) > 150_000_000


def test_a_running_attempt_is_among_them(start: Start, folder: Path) -> None:
    """While a task is at it, its attempt is listed as running, with its worker."""
    session = start()

    def wait_for(path: Path) -> str:
        while not path.exists():
            time.sleep(0.02)
        return "done"

    future = session.client.submit(wait_for, folder / "go")
    until(lambda: session.client.attempts(future))
    (row,) = session.client.attempts(future)
    assert (row["outcome"], row["attempt"]) == ("running", 1)
    assert row["worker"] in ("worker-0", "worker-1")
    assert "ended_at" not in row
    (folder / "go").touch()
    assert future.result(timeout=60) == "done"
    (row,) = session.client.attempts(future)
    assert row["outcome"] == "succeeded"
