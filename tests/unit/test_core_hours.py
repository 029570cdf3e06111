"""What a run has used."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from scalable_nb.telemetry.aggregates import core_hours


def event(kind: str, address: str, hour: float, threads: int | None = None) -> dict[str, Any]:
    at = datetime.fromtimestamp(hour * 3600, UTC).isoformat()
    return {"event_type": kind, "address": address, "timestamp": at, "threads": threads}


def test_core_hours_count_each_worker_while_it_was_there() -> None:
    """Workers that left, that are there, that came twice, and events of other kinds."""
    rows = [
        event("worker-connected", "a", 0, 4),
        event("worker-connected", "b", 1, 2),
        {"event_type": "job-submitted", "job_id": "7"},
        event("worker-left", "a", 2),
        event("worker-left", "never came", 2),
        event("worker-connected", "c", 3, 1),
        event("worker-connected", "c", 4, 1),  # again, and nobody saw it leave
    ]
    assert core_hours(rows, 5 * 3600) == pytest.approx(4 * 2 + 2 * 4 + 2)
    assert core_hours([], 5 * 3600) == 0
