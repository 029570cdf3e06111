"""All attempts of one task, joined from the records of its run; pure."""

from __future__ import annotations

from collections.abc import Iterable

from scalable_nb.telemetry.ledger import Ledger
from scalable_nb.telemetry.rows import FailureRow, TaskRow, TaskState, utc_iso


class AttemptRow(FailureRow, total=False):
    """One attempt of a task, in the names of ``failures.jsonl``.

    ``outcome`` is ``"failed"``, ``"succeeded"`` or ``"running"``; what only a failure has
    (class, message, category, ...) is absent from the others. ``ended_at`` is absent while
    the attempt runs. ``memory_bytes`` is the most its worker process is known to have used.
    ``reason`` says why there was an attempt after a success: ``"recomputed"``.
    """

    outcome: str
    ended_at: str
    pid: int | None
    reason: str | None


def join_attempts(failures: Iterable[FailureRow], endings: Iterable[TaskRow]) -> list[AttemptRow]:
    """The ended attempts of a task.

    Parameters
    ----------
    failures : iterable of FailureRow
        The task's rows of ``failures.jsonl``.
    endings : iterable of TaskRow
        Its rows of ``tasks.jsonl``: one, or more where its result was computed again or the
        task was resubmitted.

    Returns
    -------
    list of AttemptRow
        Oldest first. A result that was found on disk is no attempt.
    """
    rows = [_failed(row) for row in failures]
    rows += [_succeeded(row) for row in endings if row["state"] == TaskState.SUCCEEDED.label]
    return sorted(rows, key=lambda row: row["attempt"])


def running_attempt(ledger: Ledger, task_id: str) -> AttemptRow | None:
    """The attempt that a task is at, as the ledger has it; None when it is at none."""
    row = ledger.row_of.get(task_id)
    if row is None or ledger.columns["state"][row] != TaskState.RUNNING:
        return None
    return AttemptRow(
        task_id=task_id,
        outcome="running",
        attempt=ledger.columns["attempt"][row],
        attempts_allowed=ledger.columns["attempts_allowed"][row],
        started_at=utc_iso(ledger.columns["started_at"][row]),
        worker=ledger.text("worker", row),
    )


def _failed(row: FailureRow) -> AttemptRow:
    pid = row.get("details", {}).get("pid")
    return AttemptRow(**row, outcome="failed", ended_at=row["timestamp"], pid=pid, reason=None)


def _succeeded(row: TaskRow) -> AttemptRow:
    return AttemptRow(
        run_id=row["run_id"],
        task_id=row["task_id"],
        task_name=row["task_name"],
        function_name=row["function_name"],
        component=row["component"],
        tag=row["tag"],
        args_preview=row["args_preview"],
        outcome="succeeded",
        attempt=row["attempts"],
        attempts_allowed=row["attempts_allowed"],
        started_at=row["started_at"],
        ended_at=row["timestamp"],
        queued_s=row["queued_s"],
        duration_s=row["duration_s"],
        worker=row["worker"],
        host=row["host"],
        pid=row["pid"],
        memory_bytes=row["memory_bytes"],
        reason=row["reason"],
    )
