"""Who may call a function that must never be called twice."""

from __future__ import annotations

from dataclasses import dataclass
from time import time
from typing import Any

from scalable_nb.telemetry.rows import utc_iso


@dataclass(frozen=True, slots=True)
class _Permit:
    worker: str
    run_id: int
    taken_at: float


class AtMostOnceGuard:
    """One ticket per task that is not idempotent, given once.

    Dask sends a task again whenever it does not know that it was done: after a lost worker, a
    cut connection, a cancellation that came too late. Before the function is called the attempt
    asks for the ticket of its task, so that only one of them calls it. Tickets outlive their
    tasks: a call that was cancelled may still run when the same call is submitted again.
    """

    def __init__(self) -> None:
        self._taken: dict[Any, _Permit] = {}

    def acquire(self, key: Any, worker: str, run_id: int) -> bool:
        """Give the ticket of a task to an attempt on a worker, if it is still there.

        The same attempt, known by its `run_id`, gets it again: it asks twice when the
        connection broke before the answer came, and has called nothing until then.
        """
        ticket = self._taken.setdefault(key, _Permit(worker, run_id, time()))
        return (ticket.worker, ticket.run_id) == (worker, run_id)

    def is_held_by(self, key: Any, worker: str) -> bool:
        """Whether an attempt on this worker has the ticket."""
        ticket = self._taken.get(key)
        return ticket is not None and ticket.worker == worker

    def refusal_text(self, key: Any) -> str:
        """Where and when the ticket was taken."""
        ticket = self._taken[key]
        return f"was called at {utc_iso(ticket.taken_at)} on {ticket.worker}"

    def reset(self, key: Any) -> None:
        """The outcome of the call is known, or a person wants another one in any case."""
        self._taken.pop(key, None)
