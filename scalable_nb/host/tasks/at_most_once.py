"""Permits to call a function that must never be called twice."""

from __future__ import annotations

from dataclasses import dataclass
from time import time
from typing import Any

from scalable_nb.telemetry.rows import utc_iso


@dataclass(frozen=True, slots=True)
class _Permit:
    worker: str
    run_id: int
    granted_at: float


class AtMostOnceGuard:
    """One permit per non-idempotent task, granted once.

    Dask sends a task again whenever it does not know that it was done: after a lost worker, a
    cut connection, a cancellation that came too late. Before the function is called the attempt
    requests the permit of its task, so that only one of them calls it. Permits outlive their
    tasks: a call that was cancelled may still run when the same call is submitted again.
    """

    def __init__(self) -> None:
        self._granted: dict[Any, _Permit] = {}

    def acquire(self, key: Any, worker: str, run_id: int) -> bool:
        """Grant the permit of a task to an attempt on a worker; return whether it was granted.

        The same attempt, known by its `run_id`, is granted it again: it asks twice if the
        connection broke before the answer arrived, and has called nothing until then.
        """
        permit = self._granted.setdefault(key, _Permit(worker, run_id, time()))
        return (permit.worker, permit.run_id) == (worker, run_id)

    def is_held_by(self, key: Any, worker: str) -> bool:
        """Return whether an attempt on this worker has the permit."""
        permit = self._granted.get(key)
        return permit is not None and permit.worker == worker

    def refusal_text(self, key: Any) -> str:
        """Return where and when the permit was granted, as part of a sentence."""
        permit = self._granted[key]
        return f"was called at {utc_iso(permit.granted_at)} on {permit.worker}"

    def reset(self, key: Any) -> None:
        """Take the permit back: the call's outcome is known, or the user wants another call."""
        self._granted.pop(key, None)
