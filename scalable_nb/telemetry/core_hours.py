"""How much of the machines a run has used; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any


def core_hours(rows: Iterable[Mapping[str, Any]], now: float) -> float:
    """Threads of all workers times the hours that they were connected.

    Parameters
    ----------
    rows : iterable of mapping
        Of ``workers.jsonl``, oldest first.
    now : float
        Seconds since the epoch; until then a worker counts that has not left.
    """
    since: dict[str, tuple[float, int]] = {}
    core_seconds = 0.0
    for row in rows:
        address, event = str(row.get("address")), row.get("event_type")
        if event not in ("worker-connected", "worker-left"):
            continue
        at = datetime.fromisoformat(row["timestamp"]).timestamp()
        if address in since:
            begun_at, threads = since.pop(address)
            core_seconds += threads * max(0.0, at - begun_at)
        if event == "worker-connected":
            since[address] = at, int(row.get("threads") or 1)
    core_seconds += sum(threads * max(0.0, now - begun) for begun, threads in since.values())
    return core_seconds / 3600
