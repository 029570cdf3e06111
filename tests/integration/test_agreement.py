"""After ten thousand tasks the records agree with what the functions counted on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from counting import calls, mark

from scalable_nb import RetryPolicy, ScalableSession
from scalable_nb.telemetry.journal_reader import read_rows

Start = Callable[..., ScalableSession]

_COUNT = 10_000
_RETRIES = RetryPolicy(1, base_s=0.01, max_s=0.01)


@pytest.mark.timeout(400)
def test_ten_thousand_tasks_are_counted_exactly(start: Start, folder: Path) -> None:
    """Each call is an attempt, each failed one a row, each task in one state; to the last."""
    session = start()

    def function(x: int) -> int:
        before = mark(folder, x)
        if x % 50 == 0 and before == 0:
            raise ConnectionError("the first time")
        if x % 50 == 1:
            raise ConnectionError("always")
        return x

    futures = session.client.map(function, range(_COUNT), retries=_RETRIES)
    outcome = futures.partial()
    assert len(outcome.failures) == _COUNT // 50
    counts = session.status().counts
    keys = [future.key for future in futures]
    session.close()
    assert session.paths is not None

    on_disk = {key: calls(folder, x) for x, key in enumerate(keys)}
    failures = Counter(row["task_id"] for row in read_rows(session.paths.failures).rows)
    endings = {row["task_id"]: row for row in read_rows(session.paths.tasks).rows}
    assert sum(on_disk.values()) == _COUNT + 2 * _COUNT // 50
    assert {key: row["attempts"] for key, row in endings.items()} == on_disk
    assert failures == Counter(
        {key: n - (endings[key]["state"] == "succeeded") for key, n in on_disk.items()}
    )
    states = Counter(row["state"] for row in endings.values())
    assert states == Counter(counts)
    assert states == {"succeeded": _COUNT - _COUNT // 50, "failed": _COUNT // 50}
